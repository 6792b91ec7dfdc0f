"""The lab: a client, a router, the appliance and three web servers, each in a network namespace of its own.

`netns` makes namespaces and ends what runs in them, `topology` wires them, `servers` runs nginx, `appliance`
runs trutinad, `load` and `client` send requests, `balance` and `checks` judge. `whole.Lab` is all of it at
once. Nothing here needs more than root, Debian's packages and the standard library.
"""
