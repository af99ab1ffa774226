"""leafdb.membership"""
