"""leafdb.node"""
