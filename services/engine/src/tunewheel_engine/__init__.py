"""Local inference engine: serves a base model, its adapters and fully fine-tuned models."""
