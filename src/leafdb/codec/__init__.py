"""leafdb.codec"""
