"""The routes: `videos` as OpenAI has them, `control` and `streams` of our own, and the `pages`."""
