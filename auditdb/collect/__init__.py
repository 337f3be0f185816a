"""Many databases into one: what each publishes, and the centre that collects it."""
