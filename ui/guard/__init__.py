"""What may come in: from this site, in the form that a page sends, for the visitor's own page.

NiceGUI trusts whoever knows a page's id, from any origin. Here each socket is bound to the session
in the visitor's signed cookie, each packet must have one of the few forms that a page sends, and a
tab's id counts within its session only. Anything else ends its connection. Nothing of what a client
sends is written to the log.
"""
