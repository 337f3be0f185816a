"""Values: what callers give, checked and without secrets; what is shown, safe to show."""
