"""leafdb.testing"""
