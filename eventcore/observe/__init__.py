"""What operators watch: metrics and logging."""
