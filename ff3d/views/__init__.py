"""Pictures, tables and pages of results; they train and measure nothing."""
