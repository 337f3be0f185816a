"""Reading: tokens, filters, pages, and the readers of viewers and auditors."""
