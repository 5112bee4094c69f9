"""What the commands of `medssl classify` do."""
