"""tau2-bench's telecom domain: the company's tools, and a customer who acts on a phone."""
