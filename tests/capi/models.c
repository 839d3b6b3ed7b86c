/* Opening: from a path, from memory, from descriptors; plans, budgets, progress, what a model says of itself. */
#include "smoke.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void open_model(const char *path, inlaid_engine **engine, inlaid_model **model) {
    inlaid_error err;
    inlaid_engine_config config;
    inlaid_error_init(&err, sizeof err);
    inlaid_engine_config_init(&config, sizeof config);
    config.threads = 2;
    OK(inlaid_engine_new(&config, engine, &err));
    OK(inlaid_model_open(*engine, path, NULL, model, &err));
}

static int32_t count(void *user, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    ++*(int *)user;
    return 0;
}

static int32_t stop(void *user, uint64_t done, uint64_t total) {
    (void)user, (void)done, (void)total;
    return 1;
}

static void infos(const char *path) {
    inlaid_error err;
    inlaid_engine *engine;
    inlaid_model *model;
    inlaid_model_info info;
    uint32_t ends[16];
    size_t n = 0;
    inlaid_error_init(&err, sizeof err);
    open_model(path, &engine, &model);
    inlaid_engine_free(engine); /* the model keeps it */

    info.struct_size = sizeof info;
    OK(inlaid_model_get_info(model, &info, &err));
    CHECK(strcmp(info.family, "llama") == 0);
    CHECK(info.n_layers > 0 && info.vocab > 0 && info.parameters > 0 && info.max_positions > 0);
    CHECK(info.n_heads % info.n_kv_heads == 0 && info.head_dim > 0 && info.d_model > 0 && info.d_ff > 0);
    CHECK(info.cache_type >= INLAID_TYPE_F32 && info.cache_type <= INLAID_TYPE_Q8);
    CHECK(info.mapped_bytes > 0 && info.private_bytes > 0 && info.kv_bytes_per_token > 0);
    CHECK(info.has_tokenizer == 1 && info.has_template == 1);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_get_info(model, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_get_info(NULL, &info, &err));

    OK(inlaid_model_end_tokens(model, NULL, 0, &n, &err));
    CHECK(n > 0 && n <= 16);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_model_end_tokens(model, ends, 0, &n, &err));
    OK(inlaid_model_end_tokens(model, ends, 16, &n, &err));
    CHECK((int32_t)ends[0] == info.eos);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_end_tokens(model, ends, 16, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_end_tokens(NULL, ends, 16, &n, &err));

    inlaid_model_retain(model);
    inlaid_model_retain(NULL);
    inlaid_model_free(model);
    OK(inlaid_model_get_info(model, &info, &err));
    inlaid_model_free(model);
    inlaid_model_free(NULL);
}

static void opening(const char *path, const char *textless) {
    inlaid_error err;
    inlaid_engine_config engine_config;
    inlaid_engine_info engine_info;
    inlaid_model_config config;
    struct {
        inlaid_model_config config;
        uint64_t later;
    } newer;
    inlaid_memory_plan plan, copied;
    inlaid_model_info info;
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    int calls = 0;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_engine_new(NULL, &engine, &err));

    CHECK(inlaid_model_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(inlaid_model_config_init(&config, 1) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_model_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);
    config.progress = count;
    config.progress_user = &calls;
    config.no_tokenizer = 1;
    config.copy = 1;
    config.cache_type = INLAID_TYPE_BF16;
    OK(inlaid_model_open(engine, path, &config, &model, &err));
    CHECK(calls > 0);
    info.struct_size = sizeof info;
    OK(inlaid_model_get_info(model, &info, &err));
    CHECK(info.has_tokenizer == 0 && info.has_template == 0 && info.mapped_bytes == 0);
    CHECK(info.cache_type == INLAID_TYPE_BF16);
    inlaid_model_free(model);

    plan.struct_size = sizeof plan;
    copied.struct_size = sizeof copied;
    OK(inlaid_model_plan(engine, path, NULL, &plan, &err));
    OK(inlaid_model_plan(engine, path, &config, &copied, &err));
    CHECK(plan.mapped_bytes > 0 && copied.mapped_bytes == 0 && copied.private_bytes > plan.private_bytes);
    CHECK(plan.kv_page_tokens > 0 && plan.kv_bytes_per_token >= copied.kv_bytes_per_token);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_plan(engine, path, NULL, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_plan(NULL, path, NULL, &plan, &err));
    EXPECT(INLAID_ERROR_IO, inlaid_model_plan(engine, "/no/such/model", NULL, &plan, &err));
    plan.struct_size = 0;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_plan(engine, path, NULL, &plan, &err));

    config.progress = stop;
    model = (inlaid_model *)&err;
    EXPECT(INLAID_ERROR_CANCELLED, inlaid_model_open(engine, path, &config, &model, &err));
    CHECK(model == NULL);
    config.progress = NULL;
    config.copy = 2;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, path, &config, &model, &err));
    config.copy = 0;
    config.cache_type = 9;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, path, &config, &model, &err));
    config.cache_type = INLAID_TYPE_AUTO;
    newer.config = config;
    newer.config.struct_size = sizeof newer;
    newer.later = 1; /* a setting that this library does not know */
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, path, &newer.config, &model, &err));
    SAYS("offset");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, NULL, NULL, &model, &err));
    SAYS("path");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, "caf\xff", NULL, &model, &err));
    SAYS("offset 3");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(engine, path, NULL, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open(NULL, path, NULL, &model, &err));

    OK(inlaid_model_open(engine, textless, NULL, &model, &err));
    OK(inlaid_model_get_info(model, &info, &err));
    CHECK(info.has_tokenizer == 0 && info.has_template == 0);
    inlaid_model_free(model);

    /* Nothing is left of all that; and a budget that is too small for anything. */
    engine_info.struct_size = sizeof engine_info;
    OK(inlaid_engine_get_info(engine, &engine_info, &err));
    CHECK(engine_info.used_bytes == 0);
    inlaid_engine_free(engine);
    inlaid_engine_config_init(&engine_config, sizeof engine_config);
    engine_config.budget_bytes = 1000;
    OK(inlaid_engine_new(&engine_config, &engine, &err));
    config.struct_size = sizeof config;
    config.copy = 1;
    EXPECT(INLAID_ERROR_BUDGET, inlaid_model_open(engine, path, &config, &model, &err));
    inlaid_engine_free(engine);
}

static void *load(const char *dir, const char *name, size_t *len) {
    char path[1024];
    void *bytes;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(*len);
    CHECK(fread(bytes, 1, *len, file) == *len);
    fclose(file);
    return bytes;
}

static void release(void *user) {
    ++*(int *)user;
}

static void parts(const char *dir) {
    static const char *const names[] = {"config.json", "model.safetensors"};
    inlaid_error err;
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    inlaid_session *session = NULL;
    inlaid_memory_plan plan;
    inlaid_model_config config;
    inlaid_part part[2];
    void *bytes[2];
    size_t len[2], i;
    int released = 0, fd;
    char path[1024];
    FILE *padded;
    uint32_t id = 0;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_engine_new(NULL, &engine, &err));
    memset(part, 0, sizeof part);
    for (i = 0; i < 2; i++) {
        bytes[i] = load(dir, names[i], &len[i]);
        part[i].struct_size = sizeof part[i];
        part[i].name = names[i];
        part[i].data = bytes[i];
        part[i].len = len[i];
        part[i].release = release;
        part[i].release_user = &released;
    }
    plan.struct_size = sizeof plan;
    OK(inlaid_model_plan_parts(engine, part, 2, NULL, &plan, &err));
    CHECK(plan.private_bytes > 0 && released == 0);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_plan_parts(engine, part, 2, NULL, NULL, &err));
    OK(inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    OK(inlaid_session_new(model, NULL, &session, &err));
    inlaid_model_free(model);
    OK(inlaid_session_prefill(session, &id, 1, &err));
    CHECK(released < 2); /* the weights are in use */
    inlaid_session_free(session);
    CHECK(released == 2);

    released = 0;
    inlaid_model_config_init(&config, sizeof config);
    config.copy = 1;
    OK(inlaid_model_open_parts(engine, part, 2, &config, &model, &err));
    CHECK(released == 2);
    inlaid_model_free(model);
    CHECK(released == 2);

    /* Failures release nothing. */
    released = 0;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 0, NULL, &model, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, NULL, 2, NULL, &model, &err));
    EXPECT(INLAID_ERROR_FORMAT, inlaid_model_open_parts(engine, part, 1, NULL, &model, &err));
    part[0].struct_size = 8;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    part[0].struct_size = sizeof part[0];
    part[0].name = "../config.json";
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    part[0].name = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    part[0].name = names[0];
    part[0].offset = 1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    part[0].offset = 0;
    part[1].len = 20;
    EXPECT(INLAID_ERROR_FORMAT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    CHECK(released == 0 && model == NULL);

    /* The weights inside a larger file, at an odd offset, by descriptor. */
    snprintf(path, sizeof path, "%s/padded.bin", dir);
    padded = fopen(path, "wb");
    CHECK(padded != NULL && fwrite("12345", 1, 5, padded) == 5);
    CHECK(fwrite(bytes[1], 1, len[1], padded) == len[1] && fwrite("678", 1, 3, padded) == 3);
    fclose(padded);
    fd = open(path, O_RDONLY);
    part[1].data = NULL;
    part[1].release = NULL;
    part[1].fd = fd;
    part[1].offset = 5;
    part[1].len = len[1];
    OK(inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    close(fd);
    OK(inlaid_session_new(model, NULL, &session, &err));
    OK(inlaid_session_prefill(session, &id, 1, &err));
    inlaid_session_free(session);
    inlaid_model_free(model);
    EXPECT(INLAID_ERROR_IO, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err)); /* closed */
    part[1].fd = -1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_open_parts(engine, part, 2, NULL, &model, &err));
    remove(path);
    inlaid_engine_free(engine);
    free(bytes[0]);
    free(bytes[1]);
}

void models(const char *path, const char *textless) {
    infos(path);
    opening(path, textless);
    parts(textless);
}
