"""Records as the conversations that a model is trained on, with answers of the promised form."""
