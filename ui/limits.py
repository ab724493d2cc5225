"""What visitors may take of the chat's memory and connections, all of them together in 512 MiB."""

# One message or draft. The longest context of a BLOOM is 2,048 tokens, some 10,000 characters.
MESSAGE_CHARACTERS = 64_000
CHAT_CHARACTERS = 500_000  # all turns of one chat
TABS = 1_000  # chats kept, those of closed tabs too
TAB_BYTES = 96 * 2**20  # of their texts
VISITOR_FILES = 4_096  # visitors whose settings are kept

# NiceGUI's page cuts what is larger; the message above fits, however it is escaped.
PACKET_BYTES = 1_000_000
PARTIAL_BYTES = 32 * 2**20  # of socket messages that have begun to arrive, all together

PAGES = 256
PAGES_OF_VISITOR = 24
PAGES_WAITING = 48  # pages without a socket yet, at about 0.5 MB each
PAGE_GRACE_S = 5.0  # a page may wait so long for its socket before it makes way for another
PAGE_REQUESTS = 64  # requests for a page that wait for their turn
SOCKETS = 2 * PAGES
SOCKETS_OF_PAGE = 4  # a browser that comes back may hold an old one for a while
SOCKET_GRACE_S = 10.0  # until a socket must have named its page

CONNECTIONS = 768
PROBE_CONNECTIONS = 32  # above these, for probes only
SPARE_DESCRIPTORS = 128  # for files, calls to the functions, and the listener
HEAD_BYTES = 64 * 2**10
REQUEST_BYTES = 2 * 2**20
PIPELINED = 16  # requests of a connection that wait for the one before them
HEAD_S = 10.0
PROBE_HEAD_S = 2.0
REQUEST_S = 120.0  # from its head to the end of its answer; a long poll takes 36 s
WRITE_S = 30.0  # without the client taking anything of what it was sent
