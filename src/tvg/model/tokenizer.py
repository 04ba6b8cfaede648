"""The tokenizer of models made from scratch: byte-level BPE, built offline, the same bytes every time.

Qwen2.5-VL's special tokens and chat layout, digits one by one, and few tokens: a word of `WORDS` is one token, so
that prompts stay short at mini scale, and any other text still encodes.
"""

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

END, PAD, VIDEO = "<|im_end|>", "<|endoftext|>", "<|video_pad|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", VIDEO)
ELEMENTS = ("think", "answer", "timestep", "timestamp", "time")

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WORDS = """
system user assistant You are a helpful assistant . , ; : ? ! " ' ( ) [ ] / - ." "." "? ", [] ).
Find Find the moment in the video that this sentence describes : " ". When does it start and when does it end ?
First First reason inside : look through the video in order and give the time ranges that matter , each as start to end
in seconds with two decimals . Then Then give the answer inside : the start and the end in seconds with two decimals ,
joined by the word " to ", for example Give Give only the answer , after a coarse estimate then a refined one
Fill Fill in the missing verb of this event , based on the video . Reason Reason inside , then give the verb inside .
Use Use one verb to describe the event in the video . Describe Describe what the person in the video does , then give
one sentence inside . Describe every event of the video with its times , one a line : From s to s ,
It It starts at and ends at . I I look at the clip . The The event begins during and stops before or after
Watch Which Where What Who Answer Estimate first last again between from until while within about both some any
a person the person person someone a man the man a woman the woman man woman boy girl people they he she his her their
is was be being been are has have had do did not no yes up down on off in out of over under into onto around across away
back at to for by with and or then before after while as it its that this there here one two three four five
jump jumps jumping jumped spin spins spinning spun sit sits sitting sat sleep sleeps sleeping slept wave waves waving
waved run runs running ran grow grows growing grew shrink shrinks shrinking shrank starts starting started begin begins
beginning began keeps keep kept stop stops stopped continue continues
open opens opening opened close closes closing closed walk walks walking walked stand stands standing stood take takes
taking took put puts putting hold holds holding held throw throws throwing threw eat eats eating ate drink drinks
drinking drank pour pours pouring poured read reads reading watch watches watching watched look looks looking looked
turn turns turning turned play plays playing played laugh laughs laughing laughed smile smiles smiling smiled
sneeze sneezes cook cooks cooking wash washes washing washed clean cleans cleaning fix fixes fixing dress dresses
undress undresses tidy tidies fold folds grab grabs pick picks place places leave leaves enter enters go goes going went
come comes coming came lie lies lying get gets getting talk talks talking use uses using make makes work works write
rotates raise raises raised lower lowers larger smaller bigger stretch stretches fade fades flash flashes
camera floor room door window table chair bed sofa couch book phone laptop bag box cup glass bottle food water clothes
shoes shirt towel blanket pillow light television mirror cabinet kitchen refrigerator sandwich dishes broom vacuum
homework picture medicine shelf desk doorway bathroom stairs paper notebook hands hand head hair face
"""


def build(words: str = WORDS) -> PreTrainedTokenizerFast:
    """A tokenizer in which every word of `words` is one token, with or without a space before it."""
    tokenizer = Tokenizer(BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=1 << 16, min_frequency=1, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([form for word in words.split() for form in (word, " " + word)], trainer)
    tokenizer.add_tokens([AddedToken(f"<{end}{name}>", normalized=False) for name in ELEMENTS for end in ("", "/")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, chat_template=TEMPLATE, padding_side="left",
        extra_special_tokens=list(SPECIAL), model_max_length=32768,
        model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
