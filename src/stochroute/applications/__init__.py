"""What people came for: conversation, writing, more data, and the space of answers. One package each.

Import the one that is needed, such as `stochroute.applications.chat`.
"""
