"""tutelage: train small language-model agents over many turns, by distillation and reward."""

__version__ = "0.1.0"
