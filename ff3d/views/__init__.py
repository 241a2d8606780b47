"""Pictures, tables and pages of what was computed; nothing is computed here."""
