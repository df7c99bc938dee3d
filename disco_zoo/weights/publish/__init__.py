"""Publishing weights on the Hugging Face Hub."""
