/* Whole texts: states, vectors, classes, guesses, marks; beam search. */
#include "smoke.h"

static int32_t stop_at_once(void *user, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    ++*(int *)user;
    return done > 0;
}

/* A decoder without a head for classes: vectors, states, and what it cannot do. */
static void vectors(const inlaid_model *model, const inlaid_model *textless) {
    inlaid_text texts[3] = {{"Hello", 5, NULL, 0}, {"you", 3, NULL, 0}, {"Hello", 5, NULL, 0}};
    inlaid_encode_config config;
    inlaid_error err;
    float all[3 * 128], one[128], states[4 * 128];
    const uint32_t ids[4] = {5, 6, 7, 8};
    const size_t lens[2] = {3, 1};
    size_t dim = 0, rows = 0, cols = 0, n = 0;
    int told = 0;
    inlaid_error_init(&err, sizeof err);
    CHECK(inlaid_encode_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(inlaid_encode_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);

    OK(inlaid_embed(model, texts, 3, NULL, NULL, 0, &dim, &err));
    CHECK(dim == 128);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_embed(model, texts, 3, NULL, all, 3 * 128 - 1, &dim, &err));
    OK(inlaid_embed(model, texts, 3, NULL, all, 3 * 128, &dim, &err));
    CHECK(memcmp(all, all + 2 * 128, sizeof one) == 0 && memcmp(all, all + 128, sizeof one) != 0);
    OK(inlaid_embed(model, texts + 1, 1, NULL, one, 128, &dim, &err));
    CHECK(memcmp(all + 128, one, sizeof one) == 0);
    config.pooling = INLAID_POOLING_MEAN;
    config.normalize = 1;
    OK(inlaid_embed(model, texts, 1, &config, one, 128, &dim, &err));
    CHECK(memcmp(all, one, sizeof one) != 0);
    config.progress = stop_at_once;
    config.progress_user = &told;
    EXPECT(INLAID_ERROR_CANCELLED, inlaid_embed(model, texts, 3, &config, all, 3 * 128, &dim, &err));
    CHECK(told > 0);
    inlaid_encode_config_init(&config, sizeof config);
    config.pooling = 9;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, texts, 1, &config, one, 128, &dim, &err));
    SAYS("pooling");
    inlaid_encode_config_init(&config, sizeof config);
    config.normalize = -1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, texts, 1, &config, one, 128, &dim, &err));
    texts[0].text = "\xff";
    texts[0].len = 1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, texts, 1, NULL, one, 128, &dim, &err));
    texts[0].len = 0;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, texts, 1, NULL, one, 128, &dim, &err));
    SAYS("text 0 has no tokens");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, NULL, 1, NULL, one, 128, &dim, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(model, texts, 1, NULL, one, 128, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_embed(NULL, texts, 1, NULL, one, 128, &dim, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_embed(textless, texts + 1, 1, NULL, one, 128, &dim, &err));

    OK(inlaid_encode(textless, ids, lens, 2, INLAID_ENCODE_HIDDEN, NULL, NULL, 0, &rows, &cols, &err));
    CHECK(rows == 4 && cols == 128);
    OK(inlaid_encode(textless, ids, lens, 2, INLAID_ENCODE_HIDDEN, NULL, states, 4 * 128, &rows, &cols, &err));
    OK(inlaid_encode(textless, ids, lens, 2, INLAID_ENCODE_POOLED, NULL, all, 2 * 128, &rows, &cols, &err));
    CHECK(rows == 2 && memcmp(all, states + 2 * 128, sizeof one) == 0); /* a decoder's last state */
    EXPECT(INLAID_ERROR_BUFFER, inlaid_encode(textless, ids, lens, 2, INLAID_ENCODE_HIDDEN, NULL, states, 7, &rows,
                                              &cols, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_encode(textless, ids, lens, 2, 7, NULL, states, 512, &rows, &cols, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_encode(textless, NULL, lens, 2, 0, NULL, states, 512, &rows, &cols, &err));

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_classify(model, texts + 1, 1, NULL, all, NULL, 384, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_fill(model, texts + 1, 3, NULL, NULL, 0, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tag(model, texts + 1, NULL, NULL, 0, &n, &err));
}

static void classes(const inlaid_model *model) {
    inlaid_text texts[2] = {{"w5 w6", 5, NULL, 0}, {"w7", 2, "w8 w9", 5}};
    inlaid_error err;
    float logits[10], likely[10], sum = 0;
    char name[32];
    size_t n = 0, len = 0, i;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_classify(model, texts, 2, NULL, NULL, NULL, 0, &n, &err));
    CHECK(n == 5);
    OK(inlaid_classify(model, texts, 2, NULL, logits, likely, 10, &n, &err));
    for (i = 0; i < n; i++) sum += likely[5 + i];
    CHECK(sum > 0.9999f && sum < 1.0001f);
    OK(inlaid_classify(model, texts, 2, NULL, NULL, likely, 10, &n, &err));
    EXPECT(INLAID_ERROR_BUFFER, inlaid_classify(model, texts, 2, NULL, logits, NULL, 9, &n, &err));
    OK(inlaid_model_label(model, 1, name, sizeof name, &len, &err));
    CHECK(strcmp(name, "LABEL_1") == 0 && len == 7);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_label(model, 5, name, sizeof name, &len, &err));
}

static void marks(const inlaid_model *masks, const inlaid_model *tags) {
    inlaid_text hidden = {"w5 [MASK]", 9, NULL, 0}, words = {"w5 w6 w7", 8, NULL, 0};
    inlaid_mark found[8];
    inlaid_error err;
    size_t n = 0;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_fill(masks, &hidden, 3, NULL, found, 8, &n, &err));
    CHECK(n == 3 && found[0].probability >= found[1].probability && found[0].label == 0);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_fill(masks, &hidden, 3, NULL, found, 2, &n, &err));
    CHECK(n == 3);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_fill(masks, &words, 3, NULL, found, 8, &n, &err));
    OK(inlaid_tag(tags, &words, NULL, found, 8, &n, &err));
    CHECK(n == 3 && found[2].start == 6 && found[2].end == 8 && found[2].id == 7 && found[2].label < 4);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tag(masks, &words, NULL, found, 8, &n, &err));
}

static void hidden(const inlaid_model *masks, const inlaid_model *tags) {
    const uint32_t ids[] = {2, 5, 6, 7, 8, 9, 3};
    inlaid_example text = {ids, 7, 1, 0, 0, NULL, 0};
    inlaid_error err;
    inlaid_trainer *trainer = NULL;
    inlaid_train_config config;
    inlaid_train_report report = {0};
    inlaid_error_init(&err, sizeof err);
    report.struct_size = sizeof report;
    CHECK(inlaid_train_config_init(&config, sizeof config) == INLAID_OK);
    config.objective = INLAID_OBJECTIVE_MASKED_TOKEN;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_new(tags, &config, &trainer, &err));
    SAYS("masked");
    OK(inlaid_trainer_new(masks, &config, &trainer, &err));
    OK(inlaid_trainer_step(trainer, &text, 1, 1e-3f, &report, &err));
    CHECK(report.step == 1 && report.loss > 0 && report.tokens == 7);
    text.first = 6;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(trainer, &text, 1, 1e-3f, &report, &err));
    inlaid_trainer_free(trainer);
    config.mask_token = -2;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_new(masks, &config, &trainer, &err));
}

static void beams(const inlaid_model *model) {
    inlaid_beam_config config;
    inlaid_answer answers[3];
    inlaid_error err;
    inlaid_session *session = NULL;
    const uint32_t prompt[2] = {5, 6};
    uint32_t ids[3 * 8], id = 0;
    size_t n = 0, i;
    inlaid_error_init(&err, sizeof err);
    CHECK(inlaid_beam_config_init(&config, sizeof config) == INLAID_OK);
    config.beams = 3;
    config.max_tokens = 8;
    OK(inlaid_beam_search(model, NULL, 0, prompt, 2, &config, answers, 3, ids, 24, &n, &err));
    CHECK(n == 3 && answers[0].score >= answers[1].score && answers[0].at == 0 && answers[0].len <= 8);
    for (i = 1; i < n; i++) CHECK(answers[i].at == answers[i - 1].at + answers[i - 1].len);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_beam_search(model, NULL, 0, prompt, 2, &config, answers, 2, ids, 24, &n, &err));
    EXPECT(INLAID_ERROR_BUFFER, inlaid_beam_search(model, NULL, 0, prompt, 2, &config, answers, 3, ids, 23, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_beam_search(model, NULL, 0, NULL, 0, &config, answers, 3, ids, 24, &n, &err));
    config.early_stopping = 9;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_beam_search(model, NULL, 0, prompt, 2, &config, answers, 3, ids, 24, &n, &err));
    config.early_stopping = INLAID_STOP_FULL;
    config.beams = 65;
    EXPECT(INLAID_ERROR_BUFFER, inlaid_beam_search(model, NULL, 0, prompt, 2, &config, answers, 3, ids, 24, &n, &err));

    EXPECT(INLAID_ERROR_UNSUPPORTED, inlaid_model_first_token(model, &id, &err));
    OK(inlaid_session_new(model, NULL, &session, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_source(session, prompt, 2, &err));
    SAYS("reads no source");
    inlaid_session_free(session);
}

static inlaid_model *at(const inlaid_engine *engine, const char *dir, const char *name) {
    char path[4096];
    inlaid_error err;
    inlaid_model *model = NULL;
    inlaid_error_init(&err, sizeof err);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(inlaid_model_open(engine, path, NULL, &model, &err));
    return model;
}

void tasks(const char *path, const char *without, const char *readers) {
    inlaid_model *own[3], *model = NULL, *textless = NULL;
    inlaid_engine *engine = NULL, *other = NULL;
    size_t i;
    open_model(path, &engine, &model);
    open_model(without, &other, &textless);
    vectors(model, textless);
    beams(textless);
    own[0] = at(engine, readers, "classes");
    own[1] = at(engine, readers, "masks");
    own[2] = at(engine, readers, "tags");
    classes(own[0]);
    marks(own[1], own[2]);
    if (inlaid_features() & INLAID_FEATURE_TRAIN) hidden(own[1], own[2]);
    for (i = 0; i < 3; i++) inlaid_model_free(own[i]);
    inlaid_model_free(model);
    inlaid_model_free(textless);
    inlaid_engine_free(engine);
    inlaid_engine_free(other);
}
