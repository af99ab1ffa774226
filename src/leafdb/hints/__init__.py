"""leafdb.hints"""
