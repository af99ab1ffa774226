"""leafdb.wire"""
