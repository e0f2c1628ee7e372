"""What several benchmarks need, or one of them apart from measuring."""
