"""What monitoring reads: /healthz, /readyz and /metrics."""
