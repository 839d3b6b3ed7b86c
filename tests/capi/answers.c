/* Answers: streamed text, reasons to stop, turns of a conversation. */
#include "smoke.h"

struct answer {
    char text[4096];
    size_t len;
    size_t n, most; /* calls, and how many of them to allow; 0: any number */
    inlaid_session *session;
    size_t busy;
};

static int is_utf8(const char *text, size_t len) {
    const unsigned char *p = (const unsigned char *)text, *end = p + len;
    while (p < end) {
        int more = *p < 0x80 ? 0 : *p < 0xc2 ? -1 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf5 ? 3 : -1;
        if (more < 0 || end - p <= more) return 0;
        for (p++; more > 0; more--, p++)
            if ((*p & 0xc0) != 0x80) return 0;
    }
    return 1;
}

static int32_t take(void *user, const char *text, size_t len, uint32_t id) {
    struct answer *a = user;
    size_t n;
    CHECK(is_utf8(text, len));
    CHECK(a->len + len < sizeof a->text && id < 1000);
    memcpy(a->text + a->len, text, len);
    a->len += len;
    a->text[a->len] = 0;
    a->n++;
    /* The session is in use: by the call that calls here. */
    if (inlaid_session_len(a->session, &n, NULL) == INLAID_ERROR_BUSY) a->busy++;
    return a->most != 0 && a->n >= a->most;
}

static int32_t cancel(void *user, const char *text, size_t len, uint32_t id) {
    (void)text, (void)len, (void)id;
    inlaid_session_cancel((inlaid_session *)user);
    return 0;
}

static void clear(struct answer *a, inlaid_session *session) {
    memset(a, 0, sizeof *a);
    a->session = session;
}

static void streams(const inlaid_model *model) {
    inlaid_error err;
    inlaid_generate_config config;
    inlaid_session *session = NULL;
    static struct answer whole, part;
    static char text[4096];
    const char *stop[1];
    size_t stop_len[1], n = 0, len = 0;
    uint32_t ids[64], all[256];
    int32_t reason = 0;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_session_new(model, NULL, &session, &err));
    OK(inlaid_tokenize(model, "Once upon a time", 16, INLAID_ADD_SPECIAL, ids, 64, &n, &err));
    const size_t prompt = n;
    OK(inlaid_session_prefill(session, ids, prompt, &err));

    CHECK(inlaid_generate_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(inlaid_generate_config_init(&config, 3) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_generate_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);
    config.max_tokens = 40;
    config.ignore_end = 1;
    clear(&whole, session);
    OK(inlaid_generate(session, &config, take, &whole, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_LENGTH && n == 40 && whole.busy >= 40);
    /* What was streamed is the text of the tokens that the session holds now. */
    OK(inlaid_session_tokens(session, all, 256, &n, &err));
    CHECK(n == prompt + 40);
    OK(inlaid_detokenize(model, all + prompt, 40, INLAID_SKIP_SPECIAL, text, sizeof text, &len, &err));
    CHECK(len == whole.len && memcmp(text, whole.text, len) == 0);

    /* Stops after two tokens; at a token; at a text; at the context's end. */
    OK(inlaid_session_rewind(session, prompt, &err));
    clear(&part, session);
    part.most = 2;
    OK(inlaid_generate(session, &config, take, &part, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_CALLBACK && n == 2);

    config.stop_ids = all + prompt + 5;
    config.n_stop_ids = 1;
    OK(inlaid_session_rewind(session, prompt, &err));
    OK(inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_END && n >= 1 && n <= 6);
    config.n_stop_ids = 0;

    /* The second half of the answer, from a character on: its first occurrence is not after the middle. */
    for (len = whole.len / 2; len < whole.len && ((unsigned char)whole.text[len] & 0xc0) == 0x80; len++) continue;
    stop[0] = whole.text + len;
    stop_len[0] = whole.len - len;
    config.n_stop = 1;
    config.stop = stop;
    config.stop_len = stop_len;
    OK(inlaid_session_rewind(session, prompt, &err));
    clear(&part, session);
    OK(inlaid_generate(session, &config, take, &part, &reason, NULL, &err));
    CHECK(reason == INLAID_FINISH_STOP && part.len <= len && memcmp(part.text, whole.text, part.len) == 0);
    stop[0] = "no answer says this";
    config.stop_len = NULL;
    OK(inlaid_session_rewind(session, prompt, &err));
    clear(&part, session);
    OK(inlaid_generate(session, &config, take, &part, NULL, NULL, &err));
    CHECK(part.len == whole.len && memcmp(part.text, whole.text, part.len) == 0);

    OK(inlaid_session_rewind(session, prompt, &err));
    OK(inlaid_generate(session, &config, cancel, session, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_CANCELLED && n >= 1);

    stop[0] = "";
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    stop[0] = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    config.stop = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    config.n_stop = 0;
    config.n_stop_ids = 1;
    config.stop_ids = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    config.n_stop_ids = 0;
    config.ignore_end = 3;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(session, &config, NULL, NULL, &reason, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_generate(NULL, NULL, NULL, NULL, NULL, NULL, &err));
    inlaid_session_free(session);
}

static void turns(const inlaid_model *model) {
    static const char first[] = "[{\"role\": \"user\", \"content\": \"Hi\"}]";
    inlaid_error err;
    inlaid_session_config small;
    inlaid_generate_config config;
    inlaid_session *session = NULL;
    inlaid_timings before, after;
    static struct answer a;
    size_t n = 0, again = 0;
    int32_t reason = 0;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&small, sizeof small);
    small.context = 64;
    OK(inlaid_session_new(model, &small, &session, &err));
    inlaid_generate_config_init(&config, sizeof config);
    config.max_tokens = 8;
    config.ignore_end = 1;
    clear(&a, session);
    OK(inlaid_chat(session, first, sizeof first - 1, NULL, &config, take, &a, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_LENGTH && n == 8 && a.busy > 0);
    /* The same turn again finds its prompt in the cache. */
    before.struct_size = after.struct_size = sizeof before;
    OK(inlaid_session_timings(session, &before, &err));
    OK(inlaid_chat(session, first, sizeof first - 1, NULL, &config, NULL, NULL, NULL, &again, &err));
    OK(inlaid_session_timings(session, &after, &err));
    CHECK(again == 8 && after.prefill_tokens == before.prefill_tokens);

    config.max_tokens = 1000;
    OK(inlaid_chat(session, first, sizeof first - 1, NULL, &config, NULL, NULL, &reason, &n, &err));
    CHECK(reason == INLAID_FINISH_CONTEXT);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat(session, "7", 1, NULL, &config, NULL, NULL, NULL, NULL, &err));
    EXPECT(INLAID_ERROR_TEMPLATE, inlaid_chat(session, "[]", 2, NULL, &config, NULL, NULL, NULL, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat(NULL, "[]", 2, NULL, &config, NULL, NULL, NULL, NULL, &err));
    inlaid_session_free(session);
}

void answers(const char *path, const char *textless_path) {
    inlaid_error err;
    inlaid_engine *engine, *other;
    inlaid_model *model, *textless;
    inlaid_session *session = NULL;
    uint32_t id = 1;
    inlaid_error_init(&err, sizeof err);
    open_model(path, &engine, &model);
    open_model(textless_path, &other, &textless);
    streams(model);
    turns(model);
    OK(inlaid_session_new(textless, NULL, &session, &err));
    OK(inlaid_session_prefill(session, &id, 1, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_generate(session, NULL, NULL, NULL, NULL, NULL, &err));
    EXPECT(INLAID_ERROR_TEMPLATE, inlaid_chat(session, "[]", 2, NULL, NULL, NULL, NULL, NULL, NULL, &err));
    inlaid_session_free(session);
    inlaid_model_free(textless);
    inlaid_model_free(model);
    inlaid_engine_free(other);
    inlaid_engine_free(engine);
}
