"""leafdb.consensus"""
