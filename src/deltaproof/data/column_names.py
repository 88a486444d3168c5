"""Names that columns usually have, all in lower case."""

PAIRS = [
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"),
    ("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question_1", "question_2"), ("question", "sentence"), ("question", "passage"),
    ("question", "context"), ("query", "passage"), ("query", "document"), ("claim", "evidence"),
    ("#1 string", "#2 string"),
]  # fmt: skip
PLAIN_TEXTS = ["text", "texts", "sentence"]
"""One of these is the text, whatever else is there."""
OTHER_TEXTS = [
    "sentences", "review", "reviews", "review_text", "reviewtext", "content", "comment", "comment_text", "tweet",
    "message", "body", "document", "utterance", "post", "abstract", "description", "question", "query", "code",
    "snippet", "title",
]  # fmt: skip
LABELS = [
    "label", "labels", "target", "targets", "class", "category", "score", "similarity_score", "sentiment", "rating",
    "stars", "gold", "gold_label", "is_duplicate", "intent", "y", "quality",
]  # fmt: skip
IDS = {
    "id", "idx", "index", "guid", "uid", "pairid", "qid", "qid1", "qid2", "column 1", "unnamed: 0",
    "__index_level_0__",
}  # fmt: skip
