"""What several tests share: small clips, tiny models, fake hubs, hostile inputs."""
