"""What visitors may take of the chat's memory and connections: all of them together, 512 MiB.

Names that end in `_S` are seconds; in `_BYTES`, bytes.
"""

# Of one message or draft. BLOOM's longest context, 2,048 tokens, has some 10,000 characters.
MESSAGE_CHARACTERS = 64_000
CHAT_CHARACTERS = 500_000  # all turns of one chat
TABS = 1_000  # whose chats are kept, also of tabs that are closed
TAB_BYTES = 96 * 2**20  # of the texts of all these chats
VISITOR_FILES = 4_096  # visitors whose settings are kept

# NiceGUI's script sends nothing larger; the longest message fits, however it is escaped.
PACKET_BYTES = 1_000_000
PARTIAL_BYTES = 32 * 2**20  # of all socket messages that have only arrived in part

PAGES = 256
PAGES_OF_VISITOR = 24
PAGES_WAITING = 48  # pages that have had no socket so far, of about 0.5 MB each
PAGE_GRACE_S = 5.0  # how long a page may wait for its socket before it makes way for another
PAGE_REQUESTS = 64  # requests for a page that wait for their turn
SOCKETS = 2 * PAGES
SOCKETS_OF_PAGE = 4  # a browser that reconnects may hold an old one for a while
SOCKET_GRACE_S = 10.0  # until a socket must have named its page

CONNECTIONS = 768
PROBE_CONNECTIONS = 32  # beyond these, for probes only
SPARE_DESCRIPTORS = 128  # for files, calls to the functions, and the listener
HEAD_BYTES = 64 * 2**10
REQUEST_BYTES = 2 * 2**20
PIPELINED = 16  # requests of a connection that wait for the one before them
HEAD_S = 10.0  # until a request's head is complete
PROBE_HEAD_S = 2.0
REQUEST_S = 120.0  # from a complete head to the end of the answer; a long poll takes 36 s
WRITE_S = 30.0  # that a client may read nothing of what it was sent
