"""The formulas of all methods: pure functions of tensors that import only torch."""
