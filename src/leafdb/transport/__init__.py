"""leafdb.transport"""
