/*
 * inlaid.h: a language-model engine inside your program.
 *
 * A complete program. It opens a model and prints how the model continues a text:
 *
 *     #include <inlaid.h>
 *     #include <stdio.h>
 *     #include <string.h>
 *
 *     static int32_t print(void *user, const char *text, size_t len, uint32_t id) {
 *         (void)user, (void)id;
 *         fwrite(text, 1, len, stdout);
 *         fflush(stdout);
 *         return 0; // go on
 *     }
 *
 *     int main(int argc, char **argv) {
 *         const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
 *         inlaid_engine *engine = NULL;
 *         inlaid_model *model = NULL;
 *         inlaid_session *session = NULL;
 *         uint32_t ids[512];
 *         size_t n = 0;
 *         inlaid_error err;
 *         inlaid_error_init(&err, sizeof err);
 *
 *         if (inlaid_engine_new(NULL, &engine, &err) ||
 *             inlaid_model_open(engine, argc > 1 ? argv[1] : "model", NULL, &model, &err) ||
 *             inlaid_tokenize(model, prompt, strlen(prompt), INLAID_ADD_SPECIAL, ids, 512, &n, &err) ||
 *             inlaid_session_new(model, NULL, &session, &err) ||
 *             inlaid_session_prefill(session, ids, n, &err) ||
 *             inlaid_generate(session, NULL, print, NULL, NULL, NULL, &err))
 *             fprintf(stderr, "%s: %s\n", inlaid_status_name(err.status), err.message);
 *         else
 *             printf("\n");
 *
 *         inlaid_session_free(session); // any order; NULL is fine
 *         inlaid_model_free(model);
 *         inlaid_engine_free(engine);
 *         return err.status != INLAID_OK;
 *     }
 *
 *     cc hello.c $(pkg-config --cflags --libs inlaid) -o hello && ./hello MODEL
 *
 * MODEL is a Hugging Face directory (config.json, *.safetensors, tokenizer.json), a .safetensors file with its config
 * beside it, or a .gguf file.
 *
 * HANDLES
 *   inlaid_engine    threads, kernels of this machine, memory budget, log
 *   inlaid_model     the immutable weights, tokenizer and chat template of one model, opened with one engine
 *   inlaid_session   one conversation with a model: its tokens, its keys and values, its sampler
 *   inlaid_adapter   what an adapter adds to a model; immutable
 *   inlaid_trainer   a model that learns, beside the one that is served
 * Each is opaque and reference-counted: the call that makes it gives the caller one reference, `_retain` adds one, `_free`
 * gives one back. A session and a trainer keep their model alive and a model its engine, so the order of frees does not matter.
 * `_free(NULL)` is fine.
 *
 * THREADS
 *   A handle that a function takes as pointer to const may be used by many threads at once. A session (or a trainer) is used by
 *   one thread at a time (which one, does not matter): a call that finds it in use answers INLAID_ERROR_BUSY at once. Only
 *   inlaid_session_cancel, _retain and _free (inlaid_trainer_...) may be called while another call uses it; that call holds a
 *   reference of its own until it ends. Sessions of one model take turns in computing.
 *   No call leaves a lock held or a thread attached; an engine's threads sleep between calls.
 *   fork(): the child must not use handles of its parent.
 *
 * STATUS AND ERRORS
 *   Calls return an int32_t status, INLAID_OK (0) or one of INLAID_ERROR_... . Details go to an inlaid_error of the caller,
 *   the last argument, which may be NULL. After an error, unless the text of a function says otherwise, nothing has changed
 *   but output arguments. No error ends the process, and nothing is printed. An internal error (a bug) is
 *   INLAID_ERROR_INTERNAL; its handle then answers INLAID_ERROR_POISONED, and can only be freed.
 *
 * POINTERS
 *   Pointers are valid for the time of the call, unless the text says otherwise; the library copies what it keeps. A NULL
 *   where a value is needed, a misaligned array and a number out of range are INLAID_ERROR_ARGUMENT. Arrays come as
 *   (pointer, count); with count 0 the pointer may be NULL.
 *
 * TEXT
 *   UTF-8, as (pointer, length in bytes) in both directions; what is not UTF-8 is an error that names the offset. Paths and
 *   file names are NUL-terminated UTF-8. Names that functions return are NUL-terminated.
 *
 * BUFFERS
 *   The caller owns output buffers and says their capacity in elements (bytes, for text, which is closed with a NUL). The
 *   call reports how many elements there are (of text: without the NUL). Too small a buffer is INLAID_ERROR_BUFFER and
 *   stays as it was. With a NULL buffer of capacity 0 the call only reports. Output handles are NULL after a failure.
 *
 * STRUCTS
 *   A struct that you pass starts with `uint32_t struct_size`. Its `_init` function sets that and the defaults; a struct
 *   without one is cleared and given `sizeof` itself. NULL for a config means defaults. No struct is passed by value. There
 *   are no enums and no bools: int32_t, and constants by name.
 *
 * NUMBERS
 *   The same tokens give the same bits of logits: for any number of threads, any instruction set, in one prefill or step by
 *   step, alone or beside other sessions, and from run to run. Times are in microseconds (`_us`), sizes in bytes.
 *
 * COMPATIBILITY
 *   Structs grow at their end only, numbers of constants never change, and a function whose arguments must change gets a
 *   new name. So programs built with an older header run with a newer library, and (as long as they leave unknown fields
 *   zero) the other way round, within one SONAME. In 0.x a release may still remove functions, or change defaults and what
 *   is accepted; CHANGELOG.md names each case. From 1.0 on, nothing is removed within a major version.
 *
 * Made from src/capi by cbindgen. Do not edit.
 */

#ifndef INLAID_H
#define INLAID_H

#include <stddef.h>
#include <stdint.h>

// The version of this header: major.
#define INLAID_VERSION_MAJOR 0

// The version of this header: minor.
#define INLAID_VERSION_MINOR 1

// The version of this header: patch.
#define INLAID_VERSION_PATCH 0

// `inlaid_features`: text in and out (tokenize, detokenize, generate).
#define INLAID_FEATURE_TOKENIZER 1

// `inlaid_features`: chat templates (render, chat).
#define INLAID_FEATURE_CHAT_TEMPLATE 2

// `inlaid_features`: learning (trainers).
#define INLAID_FEATURE_TRAIN 4

// The call did what it says.
#define INLAID_OK 0

// An argument that cannot be right: NULL, a number out of range, text that is not UTF-8, a wrong `struct_size`.
#define INLAID_ERROR_ARGUMENT 1

// The file system said no.
#define INLAID_ERROR_IO 2

// A file that is not what its format says.
#define INLAID_ERROR_FORMAT 3

// A tensor that is missing, misshapen, of the wrong type or unexpected.
#define INLAID_ERROR_TENSOR 4

// A valid file, or a valid wish, that this build of the engine cannot serve.
#define INLAID_ERROR_UNSUPPORTED 5

// The model has no tokenizer, or it refuses the text or the ids.
#define INLAID_ERROR_TOKENIZER 6

// The model has no chat template, or it refuses the messages.
#define INLAID_ERROR_TEMPLATE 7

// The context is full and the session's policy is to stop.
#define INLAID_ERROR_CONTEXT_FULL 8

// The engine's memory budget has not enough left.
#define INLAID_ERROR_BUDGET 9

// The system has not enough memory. The handle still works.
#define INLAID_ERROR_MEMORY 10

// Somebody called cancel, or a progress callback said stop.
#define INLAID_ERROR_CANCELLED 11

// The session is in use by another thread, or by the call whose callback is running.
#define INLAID_ERROR_BUSY 12

// An earlier internal error left this handle unusable: free it.
#define INLAID_ERROR_POISONED 13

// A bug of the engine. Please report the message.
#define INLAID_ERROR_INTERNAL 14

// The caller's buffer is too small; the call says what it needs and has changed nothing.
#define INLAID_ERROR_BUFFER 15

// The best kernels of this machine.
#define INLAID_ISA_AUTO 0

// Plain code, for any machine.
#define INLAID_ISA_SCALAR 1

// AVX2 with FMA and F16C.
#define INLAID_ISA_AVX2 2

// AVX-512, with BF16 where the machine has it.
#define INLAID_ISA_AVX512 3

// Nothing is logged.
#define INLAID_LOG_NONE 0

// Only what the host should know of.
#define INLAID_LOG_WARN 1

// Also what was done and how long it took.
#define INLAID_LOG_INFO 2

// The library chooses: f32, the most exact one.
#define INLAID_TYPE_AUTO 0

// IEEE 754 binary32.
#define INLAID_TYPE_F32 1

// IEEE 754 binary16.
#define INLAID_TYPE_F16 2

// The upper half of a binary32.
#define INLAID_TYPE_BF16 3

// 8 bits and a scale: for cached keys and values one f32 scale for each position of a head.
#define INLAID_TYPE_Q8 4

// The library chooses: where the budget has room, quantised weights and all those of a model with an encoder as
// `INLAID_WEIGHTS_PACKED`; the rest as `INLAID_WEIGHTS_MAPPED`.
#define INLAID_WEIGHTS_AUTO 0

// Weights are used where they lie: no copy is made.
#define INLAID_WEIGHTS_MAPPED 1

// Weights are copied once into an interleaved layout, in the type they have: the same bits as mapped, faster.
#define INLAID_WEIGHTS_PACKED 2

// Weights are quantised to 8 bits (8.5 with scales) and packed.
#define INLAID_WEIGHTS_Q8 3

// Weights are quantised to 4 bits (4.5 with scales and minima), those of the head and of tables of tokens to 6, and packed.
#define INLAID_WEIGHTS_Q4 4

// Reads texts.
#define INLAID_BRANCH_ENCODER 1

// Continues texts.
#define INLAID_BRANCH_DECODER 2

// Reads one text and writes another.
#define INLAID_BRANCH_ENCODER_DECODER 3

// States alone: `inlaid_embed`, `inlaid_encode`.
#define INLAID_TASK_HIDDEN 0

// The next token: sessions, `inlaid_beam_search`.
#define INLAID_TASK_LANGUAGE_MODEL 1

// Hidden tokens: `inlaid_fill`.
#define INLAID_TASK_MASKED_LM 2

// A class or a score of a text: `inlaid_classify`.
#define INLAID_TASK_CLASSIFY 3

// A class of each token: `inlaid_tag`.
#define INLAID_TASK_TAG 4

// Where an answer stands: `inlaid_encode` with `INLAID_ENCODE_HEAD` gives the logits of its first and last token.
#define INLAID_TASK_SPAN 5

// `inlaid_tokenize`: add the tokens that the model wants around a text (its BOS, say); never a second BOS.
#define INLAID_ADD_SPECIAL 1

// `inlaid_tokenize`: names of special tokens in the text ("<|im_end|>") are those tokens. Leave it out for text that a
// user typed.
#define INLAID_PARSE_SPECIAL 2

// `inlaid_detokenize`: leave special tokens out.
#define INLAID_SKIP_SPECIAL 4

// A token that finds the context full is refused with `INLAID_ERROR_CONTEXT_FULL`, and nothing changes.
#define INLAID_OVERFLOW_STOP 0

// The first `keep` tokens stay, the older half of the others goes, and the rest is computed anew at its new positions:
// the result has the bits of a fresh session with those tokens.
#define INLAID_OVERFLOW_DROP_OLDEST 1

// Products of two narrow matrices beside the model's own (LoRA, DoRA), whole modules, biases.
#define INLAID_ADAPTER_LORA 0

// Factors of keys, values and inner activations (IA3).
#define INLAID_ADAPTER_IA3 1

// Vectors before the tokens' own (prompt tuning).
#define INLAID_ADAPTER_PROMPT 2

// Keys and values before the tokens' own (prefix tuning).
#define INLAID_ADAPTER_PREFIX 3

// Small MLPs behind the halves of blocks (bottleneck adapters of the adapters library).
#define INLAID_ADAPTER_BOTTLENECK 4

// In place of an id: no token was chosen.
#define INLAID_NO_TOKEN 4294967295

// Why an answer ended: `max_tokens` were chosen.
#define INLAID_FINISH_LENGTH 1

// Why an answer ended: an end token of the model or of the host.
#define INLAID_FINISH_END 2

// Why an answer ended: a stop string.
#define INLAID_FINISH_STOP 3

// Why an answer ended: the callback said so.
#define INLAID_FINISH_CALLBACK 4

// Why an answer ended: somebody called cancel; what was written stays.
#define INLAID_FINISH_CANCELLED 5

// Why an answer ended: the context is full and the session's policy is to stop.
#define INLAID_FINISH_CONTEXT 6

// Vectors as the model's files say; without a word there, the mean, and of a decoder the last token's state.
#define INLAID_POOLING_AUTO 0

// The mean of all tokens' states.
#define INLAID_POOLING_MEAN 1

// The first token's state.
#define INLAID_POOLING_FIRST 2

// The last token's state.
#define INLAID_POOLING_LAST 3

// The states of all tokens.
#define INLAID_ENCODE_HIDDEN 0

// One state per text, as `pooling` says.
#define INLAID_ENCODE_POOLED 1

// What the model's head says: of every token (a masked language model, a tagger), or once per text (a classifier). Of a model
// with an encoder and a decoder that writes answers, a session says it (`inlaid_session_set_source`).
#define INLAID_ENCODE_HEAD 2

// As the model's files say; without a word there, `INLAID_STOP_LIKELY`.
#define INLAID_STOP_AUTO 0

// The search ends when no beam is better, at its present length, than the worst answer.
#define INLAID_STOP_LIKELY 1

// The search ends when there are as many answers as beams.
#define INLAID_STOP_FULL 2

// The search ends when no beam can become better.
#define INLAID_STOP_NEVER 3

// Every parameter learns: private copies in 32-bit floats.
#define INLAID_LEARN_ALL 0

// The parameters whose tensors' names contain one of `targets` learn.
#define INLAID_LEARN_NAMED 1

// Low-rank additions to linears learn (LoRA); the weights stay as they are, of whatever type.
#define INLAID_LEARN_LORA 2

// The same, and magnitudes of rows apart from their directions (DoRA).
#define INLAID_LEARN_DORA 3

// Factors of what linears return or read learn (IA3).
#define INLAID_LEARN_IA3 4

// Vectors before a text learn, in the place of tokens' own (prompt tuning).
#define INLAID_LEARN_PROMPT 5

// Keys and values before a text learn, in every block (prefix tuning).
#define INLAID_LEARN_PREFIX 6

// Small MLPs behind the halves of blocks learn (bottleneck adapters).
#define INLAID_LEARN_BOTTLENECK 7

// Biases of linears and norms learn (BitFit), those whose names contain one of `targets`, or all.
#define INLAID_LEARN_BIASES 8

// Behind attention and MLP, before the residual (Houlsby et al. 2019).
#define INLAID_BOTTLENECK_BOTH 0

// Behind the MLP alone, where its sum with the residual is read (Pfeiffer et al. 2020).
#define INLAID_BOTTLENECK_MLP 1

// SiLU behind both halves, ReLU behind the MLP alone.
#define INLAID_ACTIVATION_DEFAULT 0

// Rectified linear.
#define INLAID_ACTIVATION_RELU 1

// `x sigmoid(x)`, also called swish.
#define INLAID_ACTIVATION_SILU 2

// GELU by the error function.
#define INLAID_ACTIVATION_GELU 3

// GELU by tanh.
#define INLAID_ACTIVATION_GELU_TANH 4

// The hyperbolic tangent.
#define INLAID_ACTIVATION_TANH 5

// Cross-entropy of next tokens: supervised fine-tuning, or the language itself.
#define INLAID_OBJECTIVE_NEXT_TOKEN 0

// A reward model's loss on ranked answers, of a model with one output.
#define INLAID_OBJECTIVE_REWARD 1

// Preferences without a reward model (DPO).
#define INLAID_OBJECTIVE_DPO 2

// Cross-entropy of tokens that are hidden in whole texts, of a masked language model (BERT).
#define INLAID_OBJECTIVE_MASKED_TOKEN 3

// There is more to do: call `inlaid_ppo_advance` again.
#define INLAID_PPO_MORE 0

// Answers are drawn: say what they are worth with `inlaid_ppo_set_rewards`.
#define INLAID_PPO_REWARDS 1

// The round is done.
#define INLAID_PPO_DONE 2

// An adapter of one model, in the form of the peft library. Opaque, immutable, reference-counted; all its calls may be made
// from many threads at once, and any number of sessions may use it. Who uses it keeps it alive.
typedef struct inlaid_adapter inlaid_adapter;

// Threads that compute, the kernels of this machine, a memory budget and a log, shared by the models that are opened
// with it. Opaque, reference-counted; all its calls may be made from many threads at once.
typedef struct inlaid_engine inlaid_engine;

// An open model: weights, tokenizer, chat template. Opaque, immutable, reference-counted; all its calls may be made from
// many threads at once. Its sessions keep it alive.
typedef struct inlaid_model inlaid_model;

// One conversation with a model. Opaque, reference-counted. One thread at a time: a call that finds it in use answers
// `INLAID_ERROR_BUSY` at once, and so does a call from within its own callback. Different sessions, of one model too, may
// be used from different threads.
typedef struct inlaid_session inlaid_session;

// A model that learns, beside the one that is served: its sessions never see it. Opaque, reference-counted. One thread at a
// time: a call that finds it in use answers `INLAID_ERROR_BUSY` at once; cancel, retain and free may be called from any.
typedef struct inlaid_trainer inlaid_trainer;

// How a call went, in words. Owned by the caller, usually on its stack; every function takes a pointer to one, or NULL
// where the status is enough. Each call overwrites it, a success with `INLAID_OK` and an empty message.
//
// Initialise it once with `inlaid_error_init`, or by setting `struct_size = sizeof(inlaid_error)`.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // What the call returned.
    int32_t status;
    // UTF-8, NUL-terminated, empty after a success. It names the file, tensor or argument, what was expected and what
    // was found; a longer message is cut, never within a character.
    char message[504];
} inlaid_error;

// Receives a message of an engine: its level, and `len` bytes of UTF-8 that are valid until the function returns.
//
// Called on a thread that runs a call of this library, no lock held; several at once where several threads work. It must
// return normally (no exception, no `longjmp`).
typedef void (*inlaid_log_fn)(void *user, int32_t level, const char *text, size_t len);

// What an engine is made with. Fill it with `inlaid_engine_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Threads that compute, the calling one included; 0 (default): as many as the process may use, or as there are
    // `cores`; at most 1024. Results have the same bits for every number.
    int32_t threads;
    // `INLAID_ISA_...`, default `INLAID_ISA_AUTO`. Results have the same bits for each.
    int32_t isa;
    // The most detailed level that `log` receives, default `INLAID_LOG_INFO`.
    int32_t log_level;
    // Most private bytes that models and sessions of this engine may take together; 0 (default): no limit. Mapped weights
    // are not private.
    uint64_t budget_bytes;
    // Where messages go; NULL (default): nowhere.
    inlaid_log_fn log;
    // The first argument of `log`.
    void *log_user;
    // Numbers of the processors that the engine's own threads may run on; NULL (default): wherever the system puts them.
    // Copied by the call. The calling thread computes too, and is yours: its affinity is never changed; restrict it
    // yourself where all of the work shall stay on these processors. Linux; elsewhere `INLAID_ERROR_UNSUPPORTED`.
    const uint32_t *cores;
    // Entries of `cores` (default 0).
    size_t n_cores;
} inlaid_engine_config;

// What an engine is. Set `struct_size`, then call `inlaid_engine_get_info`.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Threads that compute.
    int32_t threads;
    // Private bytes that its models and sessions hold or have set aside.
    uint64_t used_bytes;
    // Name of the kernels in use: "scalar", "avx2" or "avx512". Static, NUL-terminated.
    const char *isa;
} inlaid_engine_info;

// Told while a model is opened: bytes done and bytes in all. Non-zero cancels: the open call answers
// `INLAID_ERROR_CANCELLED`. Called on the thread of the call, no lock held; it must return normally.
typedef int32_t (*inlaid_progress_fn)(void *user, uint64_t done, uint64_t total);

// How a model is opened. Fill it with `inlaid_model_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Type of cached keys and values, `INLAID_TYPE_...`, default `INLAID_TYPE_AUTO`.
    int32_t cache_type;
    // 0 (default): weights are used where they lie, in mapped files or the caller's memory; opening takes no time and
    // little private memory. A mapped file that another process truncates ends this one with SIGBUS, which no library
    // can prevent. 1: everything is copied into private memory, files may change or vanish afterwards, and the checksums
    // of a packed file are verified.
    int32_t copy;
    // 1: the tokenizer and the chat template are left out, for hosts that feed ids. Default 0.
    int32_t no_tokenizer;
    // Told while loading; may be NULL.
    inlaid_progress_fn progress;
    // The first argument of `progress`.
    void *progress_user;
    // How weights are held, `INLAID_WEIGHTS_...`, default `INLAID_WEIGHTS_AUTO`. A file that was written packed is mapped
    // and stays as it is.
    int32_t weights;
    // Must be 0.
    int32_t reserved;
} inlaid_model_config;

// Told that the library no longer needs the memory of a part. Called once, on the thread that drops the last use (a free
// of the model or of one of its sessions, or the open call itself with `copy`). It must return normally.
typedef void (*inlaid_release_fn)(void *user);

// One file of a model that does not come from a path: bytes in the caller's memory, or a range of an open file.
//
// Names are those of a model directory: `config.json`, `model.safetensors`, `tokenizer.json`, ...; a single GGUF file may
// have any name. Clear the struct (`= {0}`, `memset`), set `struct_size`, then the fields you need; all elements of an
// array have the same size.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Where `data` is NULL: an open, regular file. The library duplicates the descriptor, and neither uses nor moves its
    // position; the caller may close it after the call. (Unix; elsewhere `INLAID_ERROR_UNSUPPORTED`.)
    int32_t fd;
    // The file's name. UTF-8, NUL-terminated; copied.
    const char *name;
    // The bytes, or NULL for a file descriptor. They are used in place: they must stay valid and unchanged until the
    // model and all its sessions are gone, or (with `copy`) until the call returns.
    const void *data;
    // Of a file: its first byte, for models inside a larger file.
    uint64_t offset;
    // Bytes of `data`. Of a file: bytes from `offset` on, 0 for all that follow.
    uint64_t len;
    // Told when `data` is no longer needed; may be NULL. After a call that fails, nothing is told and the bytes are the
    // caller's again.
    inlaid_release_fn release;
    // The argument of `release`.
    void *release_user;
} inlaid_part;

// What opening a model and talking to it takes. Set `struct_size` before the call that fills it.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // A session's context is set aside in multiples of this many tokens.
    uint32_t kv_page_tokens;
    // Bytes of files that are mapped: shared with other processes, dropped by the system when memory is short.
    uint64_t mapped_bytes;
    // Private bytes: parameters that are read, buffers of one prefill chunk, a copying load's weights. Without the
    // tokenizer.
    uint64_t private_bytes;
    // Bytes of keys and values of one token of a session's context.
    uint64_t kv_bytes_per_token;
} inlaid_memory_plan;

// What a model is. Set `struct_size`, then call `inlaid_model_get_info`.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Blocks.
    uint32_t n_layers;
    // Width of the residual stream.
    uint32_t d_model;
    // Query heads of a block.
    uint32_t n_heads;
    // Key and value heads of a block.
    uint32_t n_kv_heads;
    // Width of a head.
    uint32_t head_dim;
    // Inner width of the MLP.
    uint32_t d_ff;
    // Tokens that the logits speak of; every token id is below.
    uint32_t vocab;
    // Positions the model was made for: the largest context.
    uint32_t max_positions;
    // Type of cached keys and values, `INLAID_TYPE_...`.
    int32_t cache_type;
    // The token that begins a text, or -1.
    int32_t bos;
    // The first of the tokens that end an answer, or -1; `inlaid_model_end_tokens` gives all.
    int32_t eos;
    // 1 where it can turn text into tokens.
    int32_t has_tokenizer;
    // 1 where it can render conversations.
    int32_t has_template;
    // Parameters in all.
    uint64_t parameters;
    // As in `inlaid_memory_plan`.
    uint64_t mapped_bytes;
    // As in `inlaid_memory_plan`.
    uint64_t private_bytes;
    // As in `inlaid_memory_plan`.
    uint64_t kv_bytes_per_token;
    // Time that files, config and weights took to open.
    uint64_t load_us;
    // Time that the tokenizer and the chat template took.
    uint64_t tokenizer_us;
    // The `model_type` of its config ("llama"). NUL-terminated; valid as long as a reference to the model.
    const char *family;
    // `INLAID_BRANCH_...`.
    int32_t branch;
    // What its head is for, `INLAID_TASK_...`.
    int32_t task;
    // Classes of a classifier or a tagger; else 0. `inlaid_model_label` names them.
    uint32_t n_labels;
    // Always 0.
    uint32_t reserved;
} inlaid_model_info;

// What a conversation is rendered with. Fill it with `inlaid_template_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // 1 (default): end with the beginning of the model's answer.
    int32_t add_generation_prompt;
    // Seconds since 1970 for templates that write the date; 0 (default): now.
    uint64_t now_s;
    // Functions that the model may call: a JSON list of objects, `tools_len` bytes; NULL (default): none.
    const char *tools;
    // Bytes of `tools`.
    size_t tools_len;
    // Further variables of the template: a JSON object, `extra_len` bytes; NULL (default): none.
    const char *extra;
    // Bytes of `extra`.
    size_t extra_len;
} inlaid_template_config;

// How tokens are chosen. Fill it with `inlaid_sampler_init` (greedy), then change what you need. The settings work in
// this order: logit bias, repetition, frequency and presence penalties, temperature, `top_k`, `top_p`, `min_p`, one draw.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Divides the logits; 0 (default): always the most likely token, the lowest id among equals.
    float temperature;
    // Only the `top_k` most likely tokens; 0 (default): all.
    uint32_t top_k;
    // Only the most likely tokens that have this probability together, in (0, 1]; default 1.
    float top_p;
    // Only tokens with at least this share of the highest probability, in [0, 1]; default 0.
    float min_p;
    // Divides positive logits of tokens seen before and multiplies negative ones; 1 (default): none.
    float repetition_penalty;
    // Taken from a token's logit once for each time it was seen; default 0.
    float frequency_penalty;
    // Taken from a token's logit if it was seen; default 0.
    float presence_penalty;
    // Only the last so many tokens count as seen; 0 (default): all.
    uint32_t penalty_window;
    // Entries of `logit_bias_ids` and of `logit_bias`.
    uint32_t n_logit_bias;
    // Tokens with a bias. Copied by the call.
    const uint32_t *logit_bias_ids;
    // What is added to their logits; `-INFINITY` bans a token. Copied by the call.
    const float *logit_bias;
    // The same seed, tokens and logits give the same choice, on every machine. Default 0.
    uint64_t seed;
} inlaid_sampler;

// How a session is made. Fill it with `inlaid_session_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // What happens when the context is full: `INLAID_OVERFLOW_...`, default `INLAID_OVERFLOW_STOP`.
    int32_t overflow;
    // Tokens the session can hold; 0 (default): what the model was made for, but at most 4096.
    uint32_t context;
    // With `INLAID_OVERFLOW_DROP_OLDEST`: tokens at the start that stay (a system prompt). Default 0.
    uint32_t keep;
    // Tokens of a prompt that run at once; 0 (default): 512. Fewer take less memory and answer a cancel sooner; the
    // results have the same bits.
    uint32_t chunk;
    // Must be 0.
    uint32_t reserved;
    // How tokens are chosen; NULL (default): greedily. Copied by the call.
    const inlaid_sampler *sampler;
    // Most tokens guessed and run at once with the next one, from 1 to 16; 0 (default): none. Guesses are kept where they
    // are what is chosen anyway: tokens and logits have the bits of plain steps, with any sampler, in less time.
    uint32_t speculate;
    // 0 (default): the rules of the model's generation_config.json hold (tokens that never appear or must appear, runs
    // that do not repeat, least lengths). 1: they do not.
    uint32_t ignore_rules;
    // With `speculate`: the model that guesses, a smaller one with the same tokens. It gets a session of its own, charged
    // to the budget of its engine, and is kept alive. NULL (default): guesses are what followed when the last tokens stood
    // in the conversation before, for answers that repeat much of their prompt.
    const inlaid_model *draft;
} inlaid_session_config;

// What an adapter is. Set `struct_size`, then call `inlaid_adapter_get_info`.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // `INLAID_ADAPTER_...`.
    int32_t kind;
    // The largest rank of its products; 0 without any.
    uint32_t rank;
    // Vectors that it puts before a text: they take room of a session's context.
    uint32_t virtual_tokens;
    // Modules that it changes.
    uint64_t modules;
    // Numbers that it has.
    uint64_t parameters;
} inlaid_adapter_info;

// Time spent and tokens done since a session began. Set `struct_size`, then call `inlaid_session_timings`.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // 0.
    uint32_t reserved;
    // Time in runs of two tokens or more.
    uint64_t prefill_us;
    // Tokens of those.
    uint64_t prefill_tokens;
    // Time in runs of one token, or of one token and guesses. A pass that several sessions share counts whole for each.
    uint64_t decode_us;
    // Tokens of those; of guesses, the right ones.
    uint64_t decode_tokens;
    // Time spent choosing tokens.
    uint64_t sample_us;
    // Tokens chosen.
    uint64_t sampled_tokens;
    // Time spent guessing tokens.
    uint64_t draft_us;
    // Tokens guessed.
    uint64_t drafted_tokens;
    // Guesses that were right.
    uint64_t accepted_tokens;
    // Tokens whose keys and values were there already, because another session of the model began with the same ones.
    uint64_t shared_tokens;
} inlaid_timings;

// When an answer ends. Fill it with `inlaid_generate_config_init`, then change what you need. All arrays are copied by
// the call.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Most tokens of the answer; default 256.
    uint32_t max_tokens;
    // 1: go on after the model's own end tokens. Default 0.
    int32_t ignore_end;
    // Entries of `stop` (default 0).
    uint32_t n_stop;
    // Texts that end the answer, and are not part of it; UTF-8.
    const char *const *stop;
    // Bytes of each of them; NULL (default): they are NUL-terminated.
    const size_t *stop_len;
    // Tokens that end the answer beside those of the model.
    const uint32_t *stop_ids;
    // Entries of `stop_ids` (default 0).
    size_t n_stop_ids;
} inlaid_generate_config;

// Receives an answer as it grows: each token's id with the text that became certain with it, `len` bytes of UTF-8 that
// are valid until the function returns, not NUL-terminated. Only whole characters; no text (`len` 0) while a character is
// unfinished or a stop string may have begun. Non-zero ends the answer.
//
// Called on the thread of the call, no lock held; calls on the same session answer `INLAID_ERROR_BUSY`, but for cancel,
// retain and free. It must return normally (no exception, no `longjmp`).
typedef int32_t (*inlaid_token_fn)(void *user, const char *text, size_t len, uint32_t id);

// How texts are read. Fill it with `inlaid_encode_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Which states make a text's vector, `INLAID_POOLING_...`, default `INLAID_POOLING_AUTO`.
    int32_t pooling;
    // Whether vectors are divided by their length: 0 (default) as the model's files say, else not; 1 yes; 2 no.
    int32_t normalize;
    // 1: texts that are longer than the model takes lose their end. 0 (default): they are an error.
    int32_t truncate;
    // Told texts done and texts in all, on the thread of the call; non-zero ends it with `INLAID_ERROR_CANCELLED`. May be
    // NULL.
    inlaid_progress_fn progress;
    // The first argument of `progress`.
    void *progress_user;
} inlaid_encode_config;

// A text, or two that belong together. An element of an array: it never grows.
typedef struct {
    // UTF-8.
    const char *text;
    // Its bytes.
    size_t len;
    // The text that belongs to it (the second sentence of a pair, or where an answer stands), or NULL.
    const char *second;
    // Its bytes.
    size_t second_len;
} inlaid_text;

// A guess for a hidden token, or the class of a token. An element of an array: it never grows.
typedef struct {
    // The token.
    uint32_t id;
    // Of a class: its number; see `inlaid_model_label`. Of a guess: which mask of the text, from 0.
    uint32_t label;
    // First character of the token in its text. Of a guess: 0.
    uint32_t start;
    // One after its last.
    uint32_t end;
    // How likely it is, from 0 to 1.
    float probability;
} inlaid_mark;

// How to search. Fill it with `inlaid_beam_config_init`, then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Beams, from 1 to 64; 0 (default): as the model's files say, else 4.
    uint32_t beams;
    // Most tokens of an answer; default 128.
    uint32_t max_tokens;
    // When to stop, `INLAID_STOP_...`, default `INLAID_STOP_AUTO`.
    int32_t early_stopping;
    // An answer's log-probability is divided by its length to this power; NaN (default): as the model's files say, else 1.
    float length_penalty;
    // As of `inlaid_session_config`.
    uint32_t ignore_rules;
} inlaid_beam_config;

// An answer of a search: `len` of the ids that the call wrote, from `at` on. An element of an array: it never grows.
typedef struct {
    // The answer's first id among all that were written.
    size_t at;
    // Its ids, a closing end token included.
    size_t len;
    // Its log-probability over its length to the power of the penalty.
    float score;
    // Unused.
    uint32_t reserved;
} inlaid_answer;

// How a trainer learns. Fill it with `inlaid_train_config_init`, then change what you need. Arrays are copied by the call.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // What is minimised, `INLAID_OBJECTIVE_...`, default `_NEXT_TOKEN`. `inlaid_ppo_new` does not look at it.
    int32_t objective;
    // What learns, `INLAID_LEARN_...`, default `_ALL`.
    int32_t learn;
    // With `INLAID_LEARN_LORA` and `_DORA`: the inner width of an addition; default 8.
    uint32_t lora_rank;
    // With `INLAID_LEARN_LORA` and `_DORA`: an addition is multiplied by this over its rank; default 16.
    float lora_alpha;
    // Decays of the optimiser's (AdamW) means of gradients and of their squares; default 0.9 and 0.999.
    float beta1;
    // See `beta1`.
    float beta2;
    // Added to the root of the corrected mean of squares, as PyTorch does; default 1e-8.
    float epsilon;
    // Weight decay of matrices; default 0.
    float weight_decay;
    // Gradients with a larger norm are scaled down to it; 0: none are. Default 1.
    float clip;
    // Share of each target that is spread over all tokens; default 0.
    float smoothing;
    // With `INLAID_OBJECTIVE_DPO`: how much staying near the model that it was counts; default 0.1.
    float dpo_beta;
    // Most tokens that run at once, unless one example has more; default 2048.
    uint32_t pass_tokens;
    // Entries of `targets` (default 0).
    uint32_t n_targets;
    // Parts of names of tensors, NUL-terminated; none means, with `INLAID_LEARN_LORA` and `_DORA`, every linear but the head,
    // with `_IA3` keys, values and the ends of MLPs, and with `_BIASES` all.
    const char *const *targets;
    // Decides what is random. Default 0.
    uint64_t seed;
    // With `INLAID_OBJECTIVE_MASKED_TOKEN`: the share of each text's tokens that are to be guessed, at least one; in the place
    // of 8 of 10 of them stands the mask, of 1 a random token. Drawn anew in each step; default 0.15.
    float mask_share;
    // The token that stands for one that is hidden; -1 (default): what the model's tokenizer says.
    int32_t mask_token;
    // 1: blocks are computed again for their gradients: less memory, about a third more time, the same bits. Default 0.
    int32_t recompute;
    // Must be 0.
    uint32_t reserved;
    // With `INLAID_LEARN_IA3` and `targets`: parts of the names of those among them whose inputs are scaled, not their
    // outputs; NUL-terminated.
    const char *const *feedforward;
    // With `INLAID_LEARN_PROMPT`: tokens whose vectors the prompt begins as, from the first on again where there are too few;
    // none: random ones.
    const uint32_t *prompt;
    // Entries of `feedforward` (default 0).
    uint32_t n_feedforward;
    // Entries of `prompt` (default 0).
    uint32_t n_prompt;
    // With `INLAID_LEARN_PROMPT` and `_PREFIX`: how many vectors, or keys and values, come before a text; default 20.
    uint32_t virtual_tokens;
    // With `INLAID_LEARN_BOTTLENECK`: the inner width; 0, the default: a sixteenth of the model's.
    uint32_t bottleneck_width;
    // With `INLAID_LEARN_BOTTLENECK`: `INLAID_BOTTLENECK_...`, default `_BOTH`.
    int32_t bottleneck_place;
    // With `INLAID_LEARN_BOTTLENECK`: `INLAID_ACTIVATION_...`, default `_DEFAULT`.
    int32_t bottleneck_activation;
} inlaid_train_config;

// Tokens of which the end is to be learnt. An element of an array: it never grows.
typedef struct {
    // The tokens: a prompt and an answer.
    const uint32_t *ids;
    // How many there are, two at least.
    size_t n;
    // The first that is learnt, from 1 on: the tokens of the prompt. With `INLAID_OBJECTIVE_MASKED_TOKEN` the first that may
    // be hidden; tokens that are special to the model's tokenizer never are.
    size_t first;
    // Of rankings and preferences: the number of the prompt. Answers of one prompt follow each other, the best first.
    uint32_t group;
    // Must be 0.
    uint32_t reserved;
    // Of a model that reads a source (see `inlaid_session_set_source`), the tokens that its encoder reads; `ids` are then its
    // decoder's, which begin with `inlaid_model_first_token`. Other models have none.
    const uint32_t *source;
    // How many there are.
    size_t n_source;
} inlaid_example;

// What a step did.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Must be 0.
    uint32_t reserved;
    // Steps done, this one among them.
    uint64_t step;
    // The loss before the step: a mean over tokens that count, or over prompts.
    double loss;
    // Norm of the gradient before clipping.
    double grad_norm;
    // Tokens that ran.
    uint64_t tokens;
} inlaid_train_report;

// How a policy learns from rewards. Fill it with `inlaid_ppo_config_init` (the published defaults), then change what you need.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Most tokens of an answer; default 64.
    uint32_t max_tokens;
    // Times that each answer is learnt from; default 4.
    uint32_t epochs;
    // Answers of a minibatch, a step of the optimiser each; default 4.
    uint32_t minibatch;
    // Learning rate; default 1e-5.
    float rate;
    // What logits are divided by, in drawing and learning; default 1.
    float temperature;
    // Weight of a token's divergence from the model that is served, at first; default 0.05.
    float kl_coef;
    // Divergence of an answer, in nats, that the weight is moved towards; 0 (default): the weight stays.
    float kl_target;
    // Answers over which an error of the divergence counts once; default 10000.
    float kl_horizon;
    // Discount of later rewards; default 1.
    float gamma;
    // Share of later errors in advantages; default 0.95.
    float lam;
    // How far a ratio counts; default 0.2.
    float clip_policy;
    // How far a value may move; default 0.2.
    float clip_value;
    // Weight of the values' loss; default 0.1.
    float vf_coef;
    // Weight of the entropy; default 0.
    float entropy_coef;
    // 1: rewards are brought to variance 1 first. Default 0.
    int32_t whiten_rewards;
    // Weight of the loss of pretraining, where `inlaid_ppo_set_mix` gives some; default 27.8.
    float mix_coef;
    // Examples of pretraining in each minibatch; default 4.
    uint32_t mix_batch;
} inlaid_ppo_config;

// What a round of answers and updates did.
typedef struct {
    // Bytes of this struct as the caller knows it.
    uint32_t struct_size;
    // Must be 0.
    uint32_t reserved;
    // Rounds done.
    uint64_t round;
    // Mean reward of an answer.
    double reward;
    // Mean divergence of an answer from the served model, in nats.
    double kl;
    // Weight of the divergence in this round.
    double kl_coef;
    // Mean of the policy's loss.
    double policy_loss;
    // Mean of the values' loss.
    double value_loss;
    // Mean entropy of a token, where it has a weight.
    double entropy;
    // Share of tokens whose ratio was clipped.
    double clip_fraction;
    // Mean divergence from the policy that drew.
    double approx_kl;
    // Share of the returns' variance that values explained.
    double explained_variance;
    // Mean tokens of an answer.
    double tokens;
    // Mean norm of a gradient before clipping.
    double grad_norm;
    // Mean loss of the pretraining that was mixed in, in nats a token, without its weight; 0 where there was none.
    double mix_loss;
} inlaid_ppo_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is loaded, "major.minor.patch". Static, NUL-terminated. Any thread.
const char *inlaid_version(void);

// The features of the library that is loaded: `INLAID_FEATURE_...` bits. Functions of a feature that was left out are
// there, and answer `INLAID_ERROR_UNSUPPORTED`. Any thread.
uint32_t inlaid_features(void);

// The name of a status as this header spells it ("INLAID_ERROR_BUSY"); "INLAID_UNKNOWN" for a number that is none.
// Static, NUL-terminated. Any thread.
const char *inlaid_status_name(int32_t status);

// Initialises an error record. `struct_size` is `sizeof(inlaid_error)`. Does nothing where `err` is NULL or the size too
// small to hold a status. Any thread.
void inlaid_error_init(inlaid_error *err,
                       size_t struct_size);

// Fills a config with defaults. `struct_size` is `sizeof(inlaid_engine_config)`. Any thread.
int32_t inlaid_engine_config_init(inlaid_engine_config *config, size_t struct_size);

// Makes an engine and starts its threads. `config` may be NULL: defaults. On success `*engine` is a reference that the
// caller owns; on failure it is NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a thread count beyond 1024, kernels that this machine lacks, or a processor that this
// process may not use; `INLAID_ERROR_UNSUPPORTED` for `cores` on a system that cannot restrict threads;
// `INLAID_ERROR_INTERNAL` where it gives none. Any thread.
int32_t inlaid_engine_new(const inlaid_engine_config *config,
                          inlaid_engine **engine,
                          inlaid_error *err);

// Counts one more reference, which the caller owns. NULL is fine. Any thread.
void inlaid_engine_retain(const inlaid_engine *engine);

// Gives back a reference. The engine ends with its last reference, and after the last model that was opened with it.
// NULL is fine. Any thread.
void inlaid_engine_free(inlaid_engine *engine);

// Says what an engine is and what it holds. Any thread.
int32_t inlaid_engine_get_info(const inlaid_engine *engine, inlaid_engine_info *info, inlaid_error *err);

// Fills a config with defaults. `struct_size` is `sizeof(inlaid_model_config)`. Any thread.
int32_t inlaid_model_config_init(inlaid_model_config *config, size_t struct_size);

// Opens a model: a Hugging Face directory, a `.safetensors` file with its `config.json` beside it, an index of shards, or
// a `.gguf` file. `path` is UTF-8, NUL-terminated. `config` may be NULL: defaults. On success `*model` is a reference that
// the caller owns; on failure it is NULL. The model keeps the engine alive.
//
// Errors: `INLAID_ERROR_IO`, `_FORMAT`, `_TENSOR`, `_UNSUPPORTED` for files that cannot be run rightly, `_TOKENIZER`,
// `_TEMPLATE`, `_BUDGET`, `_MEMORY`, `_CANCELLED`. Any thread.
int32_t inlaid_model_open(const inlaid_engine *engine,
                          const char *path,
                          const inlaid_model_config *config,
                          inlaid_model **model,
                          inlaid_error *err);

// Opens a model whose `n_parts` files are in the caller's memory or in open files; otherwise as `inlaid_model_open`.
int32_t inlaid_model_open_parts(const inlaid_engine *engine,
                                const inlaid_part *parts,
                                size_t n_parts,
                                const inlaid_model_config *config,
                                inlaid_model **model,
                                inlaid_error *err);

// Says what opening a model with this config would take; nothing stays open, and no weight is read. Arguments and errors
// as of `inlaid_model_open`. Any thread.
int32_t inlaid_model_plan(const inlaid_engine *engine,
                          const char *path,
                          const inlaid_model_config *config,
                          inlaid_memory_plan *memory,
                          inlaid_error *err);

// As `inlaid_model_plan`, for parts. No `release` is called. Any thread.
int32_t inlaid_model_plan_parts(const inlaid_engine *engine,
                                const inlaid_part *parts,
                                size_t n_parts,
                                const inlaid_model_config *config,
                                inlaid_memory_plan *memory,
                                inlaid_error *err);

// Counts one more reference, which the caller owns. NULL is fine. Any thread.
void inlaid_model_retain(const inlaid_model *model);

// Gives back a reference. The model ends with its last reference, and after its last session. NULL is fine. Any thread.
void inlaid_model_free(inlaid_model *model);

// Says what a model is. Any thread.
int32_t inlaid_model_get_info(const inlaid_model *model, inlaid_model_info *info, inlaid_error *err);

// The tokens that end an answer. `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
//
// Errors: `INLAID_ERROR_BUFFER` where `capacity` ids are too few. Any thread.
int32_t inlaid_model_end_tokens(const inlaid_model *model,
                                uint32_t *ids,
                                size_t capacity,
                                size_t *n,
                                inlaid_error *err);

// The tokens of `text`, which is `len` bytes of UTF-8. `flags`: `INLAID_ADD_SPECIAL | INLAID_PARSE_SPECIAL` or fewer.
// `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
//
// Errors: `INLAID_ERROR_ARGUMENT` for text that is not UTF-8, naming the offset; `_TOKENIZER`; `_BUFFER` where `capacity`
// ids are too few. Any thread.
int32_t inlaid_tokenize(const inlaid_model *model,
                        const char *text,
                        size_t len,
                        uint32_t flags,
                        uint32_t *ids,
                        size_t capacity,
                        size_t *n,
                        inlaid_error *err);

// The text of `n` tokens: UTF-8, closed with a NUL; bytes that are no UTF-8 become U+FFFD. `flags`:
// `INLAID_SKIP_SPECIAL` or 0. `*len` receives its bytes without the NUL; with `text` NULL and `capacity` 0 nothing else is
// written.
//
// Errors: `INLAID_ERROR_TOKENIZER` for an id without a token; `_BUFFER` where `capacity` is not above `*len`. Any thread.
int32_t inlaid_detokenize(const inlaid_model *model,
                          const uint32_t *ids,
                          size_t n,
                          uint32_t flags,
                          char *text,
                          size_t capacity,
                          size_t *len,
                          inlaid_error *err);

// What token `id` is called in the vocabulary. The name is not the token's text: "\u0120the" may stand for " the";
// `inlaid_detokenize` gives texts. Buffer and errors as of `inlaid_detokenize`. Any thread.
int32_t inlaid_token_name(const inlaid_model *model,
                          uint32_t id,
                          char *name,
                          size_t capacity,
                          size_t *len,
                          inlaid_error *err);

// The id of the token that the vocabulary calls `name` (`len` bytes of UTF-8): "<|im_end|>", say.
//
// Errors: `INLAID_ERROR_TOKENIZER` where there is none. Any thread.
int32_t inlaid_token_id(const inlaid_model *model, const char *name, size_t len, uint32_t *id, inlaid_error *err);

// Fills a config with defaults. `struct_size` is `sizeof(inlaid_template_config)`. Any thread.
int32_t inlaid_template_config_init(inlaid_template_config *config, size_t struct_size);

// A conversation as the text that the model was trained on, by its chat template. `messages` is a JSON list, `len` bytes:
// `[{"role": "user", "content": "Hello"}]`. `config` may be NULL: defaults. Tokenize the result with
// `INLAID_PARSE_SPECIAL` alone: it may begin with the BOS. Buffer as of `inlaid_detokenize`.
//
// A template is a program within the model. Its work is bounded, but a hostile one can take all memory by doubling a
// list: do not render those of models that you do not trust.
//
// Errors: `INLAID_ERROR_ARGUMENT` for what is not JSON, or not a list of objects; `_TEMPLATE` where the model has no
// template or it refuses the conversation; `_BUFFER`. Any thread.
int32_t inlaid_chat_render(const inlaid_model *model,
                           const char *messages,
                           size_t len,
                           const inlaid_template_config *config,
                           char *text,
                           size_t capacity,
                           size_t *text_len,
                           inlaid_error *err);

// Fills settings with defaults: greedy. `struct_size` is `sizeof(inlaid_sampler)`. Any thread.
int32_t inlaid_sampler_init(inlaid_sampler *sampler, size_t struct_size);

// Fills a config with defaults. `struct_size` is `sizeof(inlaid_session_config)`. Any thread.
int32_t inlaid_session_config_init(inlaid_session_config *config, size_t struct_size);

// Begins an empty conversation. Its whole context is set aside (and charged to the engine's budget) now, so that no later
// call runs out of memory for it. `config` may be NULL: defaults. On success `*session` is a reference that the caller
// owns; on failure it is NULL. The session keeps the model alive.
//
// Errors: `INLAID_ERROR_ARGUMENT`, `_BUDGET`, `_MEMORY`. Any thread.
int32_t inlaid_session_new(const inlaid_model *model,
                           const inlaid_session_config *config,
                           inlaid_session **session,
                           inlaid_error *err);

// A second conversation with the same past, which is stored once. It is as independent as a new one.
//
// Errors: `INLAID_ERROR_BUDGET`, `_MEMORY`, `_BUSY`.
int32_t inlaid_session_fork(inlaid_session *session, inlaid_session **fork, inlaid_error *err);

// Counts one more reference, which the caller owns: for a thread that may call `inlaid_session_cancel` while another one
// frees the session. NULL is fine. Any thread.
void inlaid_session_retain(const inlaid_session *session);

// Gives back a reference. The session ends with its last reference, and not before a running call has ended. NULL is
// fine. Any thread.
void inlaid_session_free(inlaid_session *session);

// Ends the call that runs on the session, within a fraction of the time of one chunk; where none runs, the next one that
// computes. That call answers `INLAID_ERROR_CANCELLED`, and the session is as it was before; an answer ends with
// `INLAID_FINISH_CANCELLED`, and what was written stays. Never waits. Any thread, also from callbacks; NULL is fine.
void inlaid_session_cancel(const inlaid_session *session);

// Reads an adapter of `model`: a directory with `adapter_config.json` and `adapter_model.safetensors` as peft writes it.
// Every tensor must be one that the settings name, in a shape that the model asks for; settings that change what is
// computed and are not understood are refused by name. On success `*adapter` is a reference that the caller owns; on failure
// it is NULL. It can be used with this model alone, which it does not keep alive.
//
// Errors: `INLAID_ERROR_IO`, `_FORMAT`, `_TENSOR`, `_UNSUPPORTED`, `_BUDGET`. Any thread.
int32_t inlaid_adapter_open(const inlaid_model *model,
                            const char *path,
                            inlaid_adapter **adapter,
                            inlaid_error *err);

// Says what an adapter is. Any thread.
int32_t inlaid_adapter_get_info(const inlaid_adapter *adapter, inlaid_adapter_info *info, inlaid_error *err);

// Writes an adapter to the directory `path`, which is made where it is not there, in a form that peft reads as its own.
// Each of its two files is there whole or not at all.
//
// Errors: `INLAID_ERROR_IO` (a full disk is one). Any thread.
int32_t inlaid_adapter_save(const inlaid_adapter *adapter,
                            const char *path,
                            inlaid_error *err);

// Counts one more reference, which the caller owns. NULL is fine. Any thread.
void inlaid_adapter_retain(const inlaid_adapter *adapter);

// Gives back a reference. The adapter ends with its last reference, and after the last session that uses it. NULL is fine.
// Any thread.
void inlaid_adapter_free(inlaid_adapter *adapter);

// Gives a session these adapters, in place of those before; with `n` 0 it has none. `weights` says how much each counts:
// what an adapter changes is multiplied by its weight; NULL: 1 each. The tokens stay and run anew with the next call that
// computes, as if the session had had these adapters all along. Other sessions of the model keep theirs, and all can step in
// one batch.
//
// Errors: `INLAID_ERROR_ARGUMENT` (adapters of another model, weights that are no numbers, two prompts), `_CONTEXT_FULL`,
// `_BUDGET`, `_MEMORY`, `_BUSY`: the session is then as it was before.
int32_t inlaid_session_set_adapters(inlaid_session *session,
                                    const inlaid_adapter *const *adapters,
                                    const float *weights,
                                    size_t n,
                                    inlaid_error *err);

// Gives these adapters to whatever names none: sessions that are made from now on, texts, beams; with `n` 0 none. Sessions
// that are there keep what they have. Arguments as of `inlaid_session_set_adapters`.
//
// Errors: `INLAID_ERROR_ARGUMENT`. Any thread.
int32_t inlaid_model_attach(const inlaid_model *model,
                            const inlaid_adapter *const *adapters,
                            const float *weights,
                            size_t n,
                            inlaid_error *err);

// Adds these adapters into private copies of the matrices that they change, in place of what was merged before: they cost
// no time per token then. 16-bit weights are rounded once more. The call waits for a run that goes on; sessions of the
// model compute what they hold anew with their next call. Arguments as of `inlaid_session_set_adapters`.
//
// Errors: `INLAID_ERROR_UNSUPPORTED` (quantised weights, prompts, prefixes, bottlenecks: attach), `_ARGUMENT`, `_TENSOR`,
// `_BUDGET`, `_MEMORY`: nothing changes then. Any thread.
int32_t inlaid_model_merge(const inlaid_model *model,
                           const inlaid_adapter *const *adapters,
                           const float *weights,
                           size_t n,
                           inlaid_error *err);

// Drops the copies: the model is exactly what its files say again. Any thread.
int32_t inlaid_model_unmerge(const inlaid_model *model, inlaid_error *err);

// Adds `n` tokens and runs them, in chunks.
//
// Errors: `INLAID_ERROR_ARGUMENT` for ids beyond the vocabulary, `_CONTEXT_FULL`, `_CANCELLED`, `_MEMORY`, `_BUDGET`,
// `_BUSY`; the session is then as it was before.
int32_t inlaid_session_prefill(inlaid_session *session, const uint32_t *ids, size_t n, inlaid_error *err);

// Adds a token that the host chose itself. It runs with the next call that needs logits.
//
// Errors: `INLAID_ERROR_ARGUMENT`, `_CONTEXT_FULL`, `_BUSY`.
int32_t inlaid_session_accept(inlaid_session *session, uint32_t id, inlaid_error *err);

// Chooses the next token by the session's sampler, adds it and writes it to `*id`. Allocates nothing after the first.
// The model's end tokens are returned like any other.
//
// Errors: `INLAID_ERROR_ARGUMENT` where nothing was fed yet; otherwise as of `inlaid_session_prefill`.
int32_t inlaid_session_step(inlaid_session *session, uint32_t *id, inlaid_error *err);

// Forgets the tokens from position `len` on.
//
// Errors: `INLAID_ERROR_ARGUMENT` where the session holds fewer, `_BUSY`.
int32_t inlaid_session_rewind(inlaid_session *session, size_t len, inlaid_error *err);

// Makes `ids` the conversation: what the cache already holds of its beginning stays, the rest is forgotten, and the
// remainder runs with the next call that needs logits. `*reused` receives the number of tokens that stayed; it may be
// NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT`, `_CONTEXT_FULL`, `_BUSY`; the session is then as it was before.
int32_t inlaid_session_resume(inlaid_session *session,
                              const uint32_t *ids,
                              size_t n,
                              size_t *reused,
                              inlaid_error *err);

// The tokens of the conversation. `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
//
// Errors: `INLAID_ERROR_BUFFER` where `capacity` ids are too few, `_BUSY`.
int32_t inlaid_session_tokens(inlaid_session *session,
                              uint32_t *ids,
                              size_t capacity,
                              size_t *n,
                              inlaid_error *err);

// The number of tokens of the conversation.
//
// Errors: `INLAID_ERROR_BUSY`.
int32_t inlaid_session_len(inlaid_session *session, size_t *n, inlaid_error *err);

// The number of tokens that the session can hold.
//
// Errors: `INLAID_ERROR_BUSY`.
int32_t inlaid_session_context(inlaid_session *session, size_t *n, inlaid_error *err);

// Chooses tokens by other settings from now on; NULL: greedily.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a setting out of its range, `_BUSY`; the settings are then as before.
int32_t inlaid_session_set_sampler(inlaid_session *session, const inlaid_sampler *settings, inlaid_error *err);

// Time spent and tokens done since the session began (a fork begins anew).
//
// Errors: `INLAID_ERROR_BUSY`.
int32_t inlaid_session_timings(inlaid_session *session, inlaid_timings *timings, inlaid_error *err);

// The logits after the last token: `*logits` receives a pointer to `*n` floats, one for each token of the vocabulary. It
// is valid until the next call on this session, whatever that is.
//
// Errors: `INLAID_ERROR_ARGUMENT` where nothing was fed yet; otherwise as of `inlaid_session_prefill`.
int32_t inlaid_session_logits(inlaid_session *session,
                              const float **logits,
                              size_t *n,
                              inlaid_error *err);

// Adds `n` tokens, runs them, and writes the logits after each of them to `logits`: `n` rows of as many floats as the
// vocabulary has tokens. `capacity` counts floats. Feed long texts in pieces.
//
// Errors: `INLAID_ERROR_BUFFER` where there is not enough room; otherwise as of `inlaid_session_prefill`.
int32_t inlaid_session_prefill_all(inlaid_session *session,
                                   const uint32_t *ids,
                                   size_t n,
                                   float *logits,
                                   size_t capacity,
                                   inlaid_error *err);

// The most likely next tokens, most likely first, with their log-probabilities (natural): at most `n` of them, into two
// arrays of `n` elements. `*found` receives how many there are.
//
// Errors: as of `inlaid_session_logits`.
int32_t inlaid_session_top_logprobs(inlaid_session *session,
                                    size_t n,
                                    uint32_t *ids,
                                    float *logprobs,
                                    size_t *found,
                                    inlaid_error *err);

// Adds `n` tokens, runs them, and writes the log-probability (natural) of each of them, given those before. The first
// token of an empty session has none: then there is one number less. `*found` receives how many there are.
//
// Errors: `INLAID_ERROR_BUFFER` where `capacity` numbers are too few; otherwise as of `inlaid_session_prefill`.
int32_t inlaid_session_score(inlaid_session *session,
                             const uint32_t *ids,
                             size_t n,
                             float *logprobs,
                             size_t capacity,
                             size_t *found,
                             inlaid_error *err);

// Chooses the next token of each of `n` sessions of one model in one pass over its weights, which costs little more than
// the step of one, and adds it. Each session gets the bits of `inlaid_session_step`. Tokens that have not run yet, of
// prompts too (see `inlaid_session_resume`, `_accept`), run before, all sessions in one pass; where prompts that wait
// begin alike, whole pages of 64 tokens are computed once.
//
// With `max_rows` 0 as many passes are made as the longest waiting prompt takes. Otherwise about so many tokens run, at
// least one of each session, and a session whose prompt is not through yet gets no token: call again. That keeps the
// others' steps short.
//
// `ids[i]` receives the token of `sessions[i]`, or `INLAID_NO_TOKEN`; `statuses[i]`, unless `statuses` is NULL, its status:
// `INLAID_OK`, also where no token was chosen yet; `INLAID_ERROR_BUSY` where another call uses it;
// `_CONTEXT_FULL`, `_CANCELLED` (a cancel is seen between passes), `_POISONED`, `_ARGUMENT` where nothing was fed yet. Such a
// session is as `inlaid_session_step` would leave it, and does not disturb the others. The call returns the first of these
// errors in the order of the sessions. Speculation pauses in a batch. Up to 64 sessions are stepped without an allocation,
// once their number has been seen.
//
// Errors of the whole call, after which no session has changed and each status is the call's: `INLAID_ERROR_ARGUMENT` for
// a session that is NULL or named twice, sessions of different models, or more than 1024; `_MEMORY`, `_BUDGET`.
int32_t inlaid_batch_step(inlaid_session *const *sessions,
                          size_t n,
                          size_t max_rows,
                          uint32_t *ids,
                          int32_t *statuses,
                          inlaid_error *err);

// Fills a config with defaults. `struct_size` is `sizeof(inlaid_generate_config)`. Any thread.
int32_t inlaid_generate_config_init(inlaid_generate_config *config, size_t struct_size);

// Writes an answer to what the session holds: chooses tokens until one of the reasons to stop, and hands each to `each`
// (which may be NULL: read them with `inlaid_session_tokens`). `config` may be NULL: defaults. `*reason` receives
// `INLAID_FINISH_...` and `*n_tokens` the number of tokens, a closing end token included; both may be NULL. The tokens
// stay in the session.
//
// Errors: `INLAID_ERROR_TOKENIZER` where the model has none; `_ARGUMENT` for an empty stop string; otherwise as of
// `inlaid_session_step`, but for a cancel and a full context, which end the answer and are no error.
int32_t inlaid_generate(inlaid_session *session,
                        const inlaid_generate_config *config,
                        inlaid_token_fn each,
                        void *user,
                        int32_t *reason,
                        size_t *n_tokens,
                        inlaid_error *err);

// One turn of a conversation: renders `messages` (a JSON list, `len` bytes; see `inlaid_chat_render`) by the model's chat
// template, makes the result the session's conversation, reusing what the cache holds of it, and writes the answer as
// `inlaid_generate` does. For the next turn, append the answer and the new message to the list and call again.
//
// Errors: those of `inlaid_chat_render`, `inlaid_tokenize`, `inlaid_session_resume` and `inlaid_generate`.
int32_t inlaid_chat(inlaid_session *session,
                    const char *messages,
                    size_t len,
                    const inlaid_template_config *template_,
                    const inlaid_generate_config *config,
                    inlaid_token_fn each,
                    void *user,
                    int32_t *reason,
                    size_t *n_tokens,
                    inlaid_error *err);

// Fills `*config`, of `struct_size` bytes, with the defaults.
int32_t inlaid_encode_config_init(inlaid_encode_config *config, size_t struct_size);

// One vector for each of `n` texts: `n * *dim` floats, one text after the other. A text has the same bits alone and among
// others. With `vectors` NULL and `capacity` 0 only `*dim` is written. `config` may be NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a text without tokens or with more than the model takes, `_BUFFER`, `_TOKENIZER`,
// `_CANCELLED`, `_MEMORY`, `_BUDGET`. Any thread; calls on one model take turns, in pieces of some hundred tokens.
int32_t inlaid_embed(const inlaid_model *model,
                     const inlaid_text *texts,
                     size_t n,
                     const inlaid_encode_config *config,
                     float *vectors,
                     size_t capacity,
                     size_t *dim,
                     inlaid_error *err);

// The classes of each of `n` texts: `n * *classes` logits, and as many probabilities (each may be NULL), one text after the
// other, in the order of the classes' numbers. A reward model has one class, whose logit is the reward. With both NULL and
// `capacity` 0 only `*classes` is written. `config` may be NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a model that does not classify; otherwise as of `inlaid_embed`. Any thread.
int32_t inlaid_classify(const inlaid_model *model,
                        const inlaid_text *texts,
                        size_t n,
                        const inlaid_encode_config *config,
                        float *logits,
                        float *probabilities,
                        size_t capacity,
                        size_t *classes,
                        inlaid_error *err);

// The `top` most likely tokens for each mask of a text, most likely first, mask after mask. `*n` receives how many there
// are; with `guesses` NULL and `capacity` 0 nothing else is written.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a model that was not trained to fill masks, or a text without one; otherwise as of
// `inlaid_embed`. Any thread.
int32_t inlaid_fill(const inlaid_model *model,
                    const inlaid_text *text,
                    size_t top,
                    const inlaid_encode_config *config,
                    inlaid_mark *guesses,
                    size_t capacity,
                    size_t *n,
                    inlaid_error *err);

// The tokens of a text with where each stands and its most likely class; those that the tokenizer adds are left out. `*n`
// receives their number; with `marks` NULL and `capacity` 0 nothing else is written.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a model that does not classify tokens; otherwise as of `inlaid_embed`. Any thread.
int32_t inlaid_tag(const inlaid_model *model,
                   const inlaid_text *text,
                   const inlaid_encode_config *config,
                   inlaid_mark *marks,
                   size_t capacity,
                   size_t *n,
                   inlaid_error *err);

// What class `label` is called, closed with a NUL; `*len` receives its length without it.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a number that no class has, `_BUFFER`. Any thread.
int32_t inlaid_model_label(const inlaid_model *model,
                           uint32_t label,
                           char *name,
                           size_t capacity,
                           size_t *len,
                           inlaid_error *err);

// Runs `n` texts, given as ids one after the other with the length of each in `lens`, and writes what is wanted of them
// (`INLAID_ENCODE_...`): `*rows` rows of `*cols` floats, one text after the other. With `out` NULL and `capacity` 0 only
// the numbers are written, and nothing runs where they are known without. `config` may be NULL; `truncate` and `normalize`
// have no meaning here.
//
// Errors: as of `inlaid_embed`, and `INLAID_ERROR_CONTEXT_FULL` for a text that is longer than the model can hold. Any
// thread.
int32_t inlaid_encode(const inlaid_model *model,
                      const uint32_t *ids,
                      const size_t *lens,
                      size_t n,
                      int32_t wanted,
                      const inlaid_encode_config *config,
                      float *out,
                      size_t capacity,
                      size_t *rows,
                      size_t *cols,
                      inlaid_error *err);

// Fills `*config`, of `struct_size` bytes, with the defaults.
int32_t inlaid_beam_config_init(inlaid_beam_config *config, size_t struct_size);

// The token that a decoder beside an encoder begins every answer with.
//
// Errors: `INLAID_ERROR_UNSUPPORTED` where the model's files name none. Any thread.
int32_t inlaid_model_first_token(const inlaid_model *model, uint32_t *id, inlaid_error *err);

// Gives a session of an encoder-decoder the `n` ids that its answer is about: runs the encoder over them and forgets all
// tokens of the session. Feed the decoder's first token next (`inlaid_model_first_token`), then step.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a model without an encoder, no ids, or ids beyond its vocabulary, `_CONTEXT_FULL` for
// more than the model can hold, `_CANCELLED`, `_MEMORY`, `_BUDGET`, `_BUSY`; the session is then as it was before.
int32_t inlaid_session_set_source(inlaid_session *session,
                                  const uint32_t *ids,
                                  size_t n,
                                  inlaid_error *err);

// The most likely answers as a whole (beam search). `source` is the text of an encoder-decoder, empty otherwise; `prompt` is
// what the decoder begins with, and may be empty beside a source. Writes the answers, best first, to `answers` (room for as
// many as there are beams) and their ids, one answer after the other, to `ids` (room for `beams * max_tokens`). `*n`
// receives how many answers there are. `config` may be NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT`, `_BUFFER`, `_CONTEXT_FULL`, `_MEMORY`, `_BUDGET`. Any thread.
int32_t inlaid_beam_search(const inlaid_model *model,
                           const uint32_t *source,
                           size_t n_source,
                           const uint32_t *prompt,
                           size_t n_prompt,
                           const inlaid_beam_config *config,
                           inlaid_answer *answers,
                           size_t n_answers,
                           uint32_t *ids,
                           size_t n_ids,
                           size_t *n,
                           inlaid_error *err);

// Fills `*config`, of `struct_size` bytes, with the defaults.
int32_t inlaid_train_config_init(inlaid_train_config *config, size_t struct_size);

// Makes a trainer of a model: private copies of what learns, gradients, and an optimiser. `config` may be NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT`, `_MEMORY`, `_BUDGET`; `_UNSUPPORTED` from a library built without training. Any thread.
int32_t inlaid_trainer_new(const inlaid_model *model,
                           const inlaid_train_config *config,
                           inlaid_trainer **trainer,
                           inlaid_error *err);

// Adds a reference to a trainer.
void inlaid_trainer_retain(const inlaid_trainer *trainer);

// Gives back a reference; the last one ends the trainer. NULL is fine.
void inlaid_trainer_free(const inlaid_trainer *trainer);

// Ends the call that uses the trainer with `INLAID_ERROR_CANCELLED`, soon; the trainer is where it was before that call. Any
// thread, while another one uses the trainer.
void inlaid_trainer_cancel(const inlaid_trainer *trainer);

// One step of the optimiser over `n` examples, at learning rate `rate`. `report` may be NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT` for examples that teach nothing, ids beyond the vocabulary, sources where the model reads
// none and none where it reads them, or gradients that are not finite; `_CONTEXT_FULL` for one longer than the model can hold;
// `_CANCELLED`, `_MEMORY`, `_BUDGET`, `_BUSY`. Nothing has been learnt then.
int32_t inlaid_trainer_step(inlaid_trainer *trainer,
                            const inlaid_example *examples,
                            size_t n,
                            float rate,
                            inlaid_train_report *report,
                            inlaid_error *err);

// Writes what the trainer has become to a new directory `out`. Where that is an adapter, it is in the form of the peft
// library (bottlenecks: of the adapters library); `source` may be NULL then. Else it is a model that opens like any other:
// what has learned in 32-bit floats, all else as it is in `source`, the directory that the model was opened from.
//
// Errors: `INLAID_ERROR_IO`; `_UNSUPPORTED` where the weights are in GGUF or packed; `_BUSY`. Nothing is left then.
int32_t inlaid_trainer_save(inlaid_trainer *trainer,
                            const char *source,
                            const char *out,
                            inlaid_error *err);

// What a trainer of an adapter has learnt so far, as an adapter of its model: give it to sessions, merge it, save it.
// It does not change when the trainer goes on. On success `*adapter` is a reference that the caller owns; on failure it is NULL.
//
// Errors: `INLAID_ERROR_ARGUMENT` where something else learns; `_BUDGET`, `_BUSY`.
int32_t inlaid_trainer_adapter(inlaid_trainer *trainer,
                               inlaid_adapter **adapter,
                               inlaid_error *err);

// Writes a checkpoint into directory `dir`: all that a trainer goes on from, with the same bits. The one before is removed
// once this one is whole.
//
// Errors: `INLAID_ERROR_IO`, `_BUSY`.
int32_t inlaid_trainer_checkpoint(inlaid_trainer *trainer,
                                  const char *dir,
                                  inlaid_error *err);

// Brings a new trainer of the same model and config to where the newest checkpoint in `dir` was written.
//
// Errors: `INLAID_ERROR_IO`, also where there is none; `_FORMAT` and `_TENSOR` for one of another trainer; `_BUSY`.
int32_t inlaid_trainer_restore(inlaid_trainer *trainer, const char *dir, inlaid_error *err);

// Fills `*config`, of `struct_size` bytes, with the defaults.
int32_t inlaid_ppo_config_init(inlaid_ppo_config *config, size_t struct_size);

// Makes a trainer that learns from rewards (PPO). Both configs may be NULL. The reference that it is kept near is the model as
// it is served, which costs no memory.
//
// Errors: as `inlaid_trainer_new`; `INLAID_ERROR_UNSUPPORTED` for a model that writes no text by itself. Any thread.
int32_t inlaid_ppo_new(const inlaid_model *model,
                       const inlaid_train_config *learn,
                       const inlaid_ppo_config *config,
                       inlaid_trainer **trainer,
                       inlaid_error *err);

// Mixes pretraining into what the policy learns from now on: beside every minibatch some of these `n` examples are learnt, so
// that it forgets less of the language (PPO-ptx). Their ids are copied, `group` is not looked at; 0 examples end it. They are
// no part of a checkpoint: give the same ones to a trainer that goes on.
//
// Errors: `INLAID_ERROR_ARGUMENT` for examples that teach nothing, ids beyond the vocabulary, or a trainer that does not learn
// from rewards; `_CONTEXT_FULL` for one longer than the model can hold; `_BUSY`. Nothing has changed then.
int32_t inlaid_ppo_set_mix(inlaid_trainer *trainer,
                           const inlaid_example *examples,
                           size_t n,
                           inlaid_error *err);

// Begins a round: an answer will be drawn to each of `n` prompts. Prompt i is the `lens[i]` ids that follow those before it in
// `ids`; of a model that reads a source, its encoder reads them. What another round left is dropped.
//
// Errors: `INLAID_ERROR_ARGUMENT` for no prompts, empty ones, or a trainer that does not learn from rewards; `_CONTEXT_FULL`,
// `_MEMORY`, `_BUDGET`, `_BUSY`.
int32_t inlaid_ppo_begin(inlaid_trainer *trainer,
                         const uint32_t *ids,
                         const size_t *lens,
                         size_t n,
                         inlaid_error *err);

// Works on the round for about `budget_us` microseconds, at least one piece: a token of every answer, a look at the reference,
// or a minibatch. `*progress` receives `INLAID_PPO_...`.
//
// Errors: `INLAID_ERROR_ARGUMENT` where no round was begun, or gradients are not finite; `_CANCELLED`, `_MEMORY`, `_BUDGET`,
// `_BUSY`. The piece is done again by the next call.
int32_t inlaid_ppo_advance(inlaid_trainer *trainer,
                           uint64_t budget_us,
                           int32_t *progress,
                           inlaid_error *err);

// The ids of answer `i` of the round, once `INLAID_PPO_REWARDS` was reported; a closing end token among them.
//
// Errors: `INLAID_ERROR_ARGUMENT` where there is no such answer (yet), `_BUFFER`, `_BUSY`.
int32_t inlaid_ppo_answer(inlaid_trainer *trainer,
                          size_t i,
                          uint32_t *ids,
                          size_t capacity,
                          size_t *n,
                          inlaid_error *err);

// Says what each of the `n` answers of the round is worth.
//
// Errors: `INLAID_ERROR_ARGUMENT` for another number of rewards than answers, one that is not finite, or where none are waited
// for; `_BUSY`. The round is as it was.
int32_t inlaid_ppo_set_rewards(inlaid_trainer *trainer,
                               const float *rewards,
                               size_t n,
                               inlaid_error *err);

// What the last round did.
//
// Errors: `INLAID_ERROR_ARGUMENT` for a trainer that does not learn from rewards, `_BUSY`.
int32_t inlaid_ppo_get_stats(inlaid_trainer *trainer, inlaid_ppo_stats *stats, inlaid_error *err);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* INLAID_H */
