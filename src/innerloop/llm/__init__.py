"""Meta-learning for language-model fine-tuning: data, models, training, evaluation, adapting."""
