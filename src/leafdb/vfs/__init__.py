"""leafdb.vfs"""
