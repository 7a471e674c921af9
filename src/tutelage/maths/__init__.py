"""The formulas: pure functions of tensors, per token, never reduced. They import only torch."""
