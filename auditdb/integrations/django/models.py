"""No models: Django tells an app of a migrate only if it has this module."""
