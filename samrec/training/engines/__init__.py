"""What takes a training step: one model, or several of one shape stacked into one."""
