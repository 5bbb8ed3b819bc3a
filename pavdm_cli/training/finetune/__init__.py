"""Fine-tune a video model on a folder of captioned videos."""
