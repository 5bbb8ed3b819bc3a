"""One file per command: flags become a Request; no other logic belongs here."""
