"""Fine-tuning a video model on a folder of videos."""
