"""All that `pavdm bench` runs."""
