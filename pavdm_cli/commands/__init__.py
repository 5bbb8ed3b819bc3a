"""One file a verb: flags become a Request, nothing else happens here."""
