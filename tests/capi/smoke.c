/*
 * Calls every function of inlaid.h, rightly and wrongly. Usage: smoke MODEL TEXTLESS READERS, where MODEL is a directory with
 * a tokenizer and a chat template (model.safetensors, config.json, tokenizer.json, tokenizer_config.json), TEXTLESS one
 * without, and READERS holds the directories `classes`, `masks` and `tags` of encoders.
 */
#include "smoke.h"

int failures;

static char long_message[2000];

static void versions(void) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", INLAID_VERSION_MAJOR, INLAID_VERSION_MINOR, INLAID_VERSION_PATCH);
    CHECK(strcmp(inlaid_version(), text) == 0);
    CHECK((inlaid_features() & ~(uint32_t)(INLAID_FEATURE_TOKENIZER | INLAID_FEATURE_CHAT_TEMPLATE | INLAID_FEATURE_TRAIN)) == 0);
    CHECK(strcmp(inlaid_status_name(INLAID_OK), "INLAID_OK") == 0);
    CHECK(strcmp(inlaid_status_name(INLAID_ERROR_BUFFER), "INLAID_ERROR_BUFFER") == 0);
    CHECK(strcmp(inlaid_status_name(-1), "INLAID_UNKNOWN") == 0);
    CHECK(strcmp(inlaid_status_name(12345), "INLAID_UNKNOWN") == 0);
}

static void errors(void) {
    inlaid_error err;
    inlaid_error_init(NULL, sizeof err);
    memset(&err, 0x55, sizeof err);
    inlaid_error_init(&err, 4);
    CHECK(err.struct_size == 0x55555555);
    inlaid_error_init(&err, sizeof err);
    CHECK(err.struct_size == sizeof err && err.status == INLAID_OK && err.message[0] == 0);
    /* A long message is cut, and the call works without a record. */
    memset(long_message, 'x', sizeof long_message - 1);
    inlaid_engine *engine = NULL;
    inlaid_model *model = (inlaid_model *)&err;
    OK(inlaid_engine_new(NULL, &engine, &err));
    EXPECT(INLAID_ERROR_IO, inlaid_model_open(engine, long_message, NULL, &model, &err));
    CHECK(model == NULL && strlen(err.message) == sizeof err.message - 1);
    CHECK(inlaid_model_open(engine, "/no/such/model", NULL, &model, NULL) == INLAID_ERROR_IO);
    inlaid_engine_free(engine);
}

static void log_line(void *user, int32_t level, const char *text, size_t len) {
    CHECK(level == INLAID_LOG_INFO || level == INLAID_LOG_WARN);
    CHECK(text != NULL && len > 0);
    ++*(int *)user;
}

static void engines(void) {
    inlaid_error err;
    inlaid_engine_config config;
    inlaid_engine_info info;
    inlaid_engine *engine = NULL;
    int lines = 0;
    inlaid_error_init(&err, sizeof err);

    CHECK(inlaid_engine_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(config.struct_size == sizeof config && config.threads == 0 && config.budget_bytes == 0);
    CHECK(inlaid_engine_config_init(&config, 4) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_engine_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);

    config.threads = 2;
    config.isa = INLAID_ISA_SCALAR;
    config.log = log_line;
    config.log_user = &lines;
    OK(inlaid_engine_new(&config, &engine, &err));
    CHECK(lines > 0);
    info.struct_size = sizeof info;
    OK(inlaid_engine_get_info(engine, &info, &err));
    CHECK(info.threads == 2 && info.used_bytes == 0 && strcmp(info.isa, "scalar") == 0);
    info.struct_size = 3;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_get_info(engine, &info, &err));
    SAYS("struct_size");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_get_info(engine, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_get_info(NULL, &info, &err));
    SAYS("engine");
    inlaid_engine_retain(engine);
    inlaid_engine_retain(NULL);
    inlaid_engine_free(engine);
    inlaid_engine_free(engine);
    inlaid_engine_free(NULL);

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, NULL, &err));
    config.threads = -1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    CHECK(engine == NULL);
    config.threads = 100000;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    config.threads = 1;
    config.isa = 99;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    config.isa = INLAID_ISA_AUTO;
    config.log_level = 99;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    config.log_level = INLAID_LOG_NONE;
    config.struct_size = 12;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    SAYS("struct_size");
    config.struct_size = sizeof config;
    lines = 0;
    OK(inlaid_engine_new(&config, &engine, &err));
    CHECK(lines == 0);
    inlaid_engine_free(engine);
}

/* A newer program: its struct has a field that this library does not know. */
static void newer(void) {
    inlaid_error err;
    struct {
        inlaid_engine_config config;
        uint64_t later;
    } new_config;
    inlaid_engine *engine = NULL;
    inlaid_error_init(&err, sizeof err);
    CHECK(inlaid_engine_config_init(&new_config.config, sizeof new_config) == INLAID_OK);
    CHECK(new_config.later == 0 && new_config.config.struct_size == sizeof new_config);
    OK(inlaid_engine_new(&new_config.config, &engine, &err));
    inlaid_engine_free(engine);
    new_config.later = 1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&new_config.config, &engine, &err));
    CHECK(engine == NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: smoke MODEL TEXTLESS READERS\n");
        return 2;
    }
    versions();
    errors();
    engines();
    newer();
    models(argv[1], argv[2]);
    texts(argv[1], argv[2]);
    sessions(argv[2]);
    answers(argv[1], argv[2]);
    threads(argv[2]);
    batches(argv[1], argv[2]);
    tasks(argv[1], argv[2], argv[3]);
    adapters(argv[2]);
    learning(argv[2]);
    if (failures == 0) printf("smoke: every call answered as the header says\n");
    return failures != 0;
}
