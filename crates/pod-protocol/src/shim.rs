//! Node <-> shim: the pod folder and the socket protocol.
