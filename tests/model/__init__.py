"""An independent model of zonefs, and a state machine that compares it with the real thing."""
