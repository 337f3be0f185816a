"""Writing: who acts, events that no table shows, attempts; on any driver that is known here."""
