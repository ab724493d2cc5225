"""How the chat's connections are served: bounded in number, size and time; probes come first.

uvicorn bounds none of this by itself. A connection that says nothing makes way for a new one; when
all are busy, further ones are taken for probes only.
"""
