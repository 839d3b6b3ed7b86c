"""A thousand lines of mixed text, the same on every run: prose, code, numbers, emoji, many scripts, combining marks,
whitespace runs, control characters, names of special tokens."""

import random

WORDS = """the a of and to in is was it for that with as his on be at by had not are but from or have an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than into
them can only other time new some could these two may first then do any like my now over such our man me even most made
after also did many off before must well back through years where much your way down should because long each just those
people too mr how little state good very make world still see own work men day get here between both life being under
three never know same last another while us might great old year come since against go came right used take don't can't
I'm we'll they've it's he'd O'Brien rock'n'roll Newton's naïve café façade Zürich São Łódź straße coöperate résumé
internationalisation antidisestablishmentarianism HTTPServer getElementById snake_case_name kebab-case-name XMLHttpRequest
iPhone eBay McDonald 3rd 21st x86_64 utf-8 C++ F# .NET node.js a.m. U.S.A. e.g. i.e.""".split()
CODE = """for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }
def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)
let x: Vec<u32> = (0..10).map(|i| i * i).collect();
#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }
SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;
\t\tif (ptr != NULL && *ptr == '\\0') {\n\t\t\treturn;\n\t\t}
<div class="row" id='main'><a href="https://example.com/?q=1&r=2#top">x</a></div>
{"key": [1, 2.5, -3e-10, null, true], "nested": {"a": "b"}}
git commit -m "Fix #123" && git push origin main~2
$ sudo apt-get install -y libfoo-dev=1.2.3-4ubuntu5 # comment
lambda x, *args, **kwargs: (yield x) or [*args]
0xDEADBEEF 0b1010 1_000_000 6.022e23 1e-7 NaN 192.168.0.1:8080
    pub fn new() -> Self {\r\n        Self { inner: None }\r\n    }
\\frac{\\partial u}{\\partial t} = \\nabla^2 u + \\int_0^1 f(x)\\,dx""".split("\n")
SCRIPTS = """我们今天去北京,明天回上海。
東京都の天気は晴れ、気温は25℃です。
안녕하세요, 반갑습니다! 한국어 문장입니다.
Привет, как дела? Это тестовое предложение.
Γειά σου Κόσμε — η γρήγορη αλεπού
مرحبا بالعالم، كيف حالك اليوم؟
שלום עולם, מה שלומך?
नमस्ते दुनिया, आप कैसे हैं?
สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง
Xin chào thế giới, tiếng Việt có dấu
ქართული ენა და დამწერლობა
བོད་སྐད་ཡིག
አማርኛ ጽሑፍ
𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕞𝕒𝕥𝕙 𝒜𝓁𝓅𝒽𝒶
ﬁ ﬂ ™ © ½ ² № ℃ Å Ω
全角ABC123!?""".split("\n")
EMOJI = ["😀", "🙂", "🚀", "👍🏽", "👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "🇯🇵", "❤️", "☃", "✈️", "1️⃣", "🫠", "🧑🏿‍🚀", "𓀀", "\U0001F9FF"]
MARKS = ["e\u0301", "n\u0303", "a\u030a", "o\u0302\u0323", "Z\u0351\u036b\u0343", "\u1112\u1161\u11ab", "\u0915\u094d\u0937", "q\u0307\u0323"]
SPACES = [" ", "  ", "   ", "     ", "        ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", " \n", "\n ", "\r\n", "\r\n\r\n", " \t ", "\u00a0", "\u3000", "\u2003", "\u200b", "\v", "\f", "\u2028"]
ODD = ["\0", "\x01", "\x7f", "\x1b[31m", "\ufeff", "\ufffd", "\u00ad", "\ue000", "\U0010ffff", "``", "''", "...", "…", "—", "--", "!!!", "?!", "''s", "'S", "'LL", "((", "]]", "@@", "##", "$$", "^_^", ":-)", "<|endoftext|>", "<|im_start|>user", "<|im_end|>", "<s>", "</s>", "<unk>", "<0x0A>", "[INST]", "<|eot_id|>", "▁", "Ġ", "Ċ"]
NUMBERS = ["0", "7", "42", "100", "1234", "12345", "1234567", "3.14159", "1,234.56", "-17", "+1", "2024-02-29", "12:34:56", "½", "²", "٣٤٥", "१२३", "Ⅷ", "①", "50%", "$9.99", "1/2", "6x7"]


def lines(count=1000, seed=20):
    rng = random.Random(seed)
    part = [
        lambda: " ".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 12))),
        lambda: rng.choice(WORDS).capitalize() + ", " + rng.choice(WORDS) + rng.choice(".!?;:"),
        lambda: rng.choice(WORDS).upper() + rng.choice(WORDS).title(),
        lambda: rng.choice(CODE).replace("\\n", "\n"),
        lambda: rng.choice(SCRIPTS),
        lambda: rng.choice(SCRIPTS)[rng.randrange(4) :][: rng.randrange(1, 9)],
        lambda: "".join(rng.choice(EMOJI) for _ in range(rng.randrange(1, 4))),
        lambda: "".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 4))),
        lambda: rng.choice(ODD),
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(NUMBERS) + rng.choice(WORDS),
        lambda: "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(161, 0x250), rng.randrange(0x4E00, 0x9FFF)])) for _ in range(rng.randrange(1, 6))),
    ]
    fixed = ["", " ", "  ", "\n", "\t", "a", " a", "a ", "  a", " 1", "  12", "\n\n1", "'", "\u0301", "🙂", "\0"]
    out = fixed[:]
    while len(out) < count:
        pieces = []
        for _ in range(rng.randrange(1, 7)):
            pieces.append(rng.choice(part)())
            if rng.random() < 0.8:
                pieces.append(rng.choice(SPACES) if rng.random() < 0.5 else " ")
        text = "".join(pieces)
        if rng.random() < 0.15:
            text = rng.choice(SPACES) + text
        out.append(text)
    return out
