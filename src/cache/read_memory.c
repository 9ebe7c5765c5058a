#include "cache/read_memory.h"

#include <assert.h>

#include "base/poison.h"

/* Beyond the data itself: what buffers and pieces begin with. */
#define HEAD_BYTES 256u
#define NO_SIZE SF_READ_MEMORY_SIZES

/* In front of what is asked for. */
struct read_piece {
    _Alignas(16) uint32_t size; /* which of them; NO_SIZE: it is not kept */
    struct read_piece *next;    /* idle */
};

static size_t bytes_of(uint32_t size)
{
    return ((size_t)SF_READ_MEMORY_LEAST_BYTES << size) + HEAD_BYTES;
}

static uint32_t size_for(size_t n)
{
    uint32_t size = 0;

    if (n <= SF_READ_MEMORY_LEAST_BYTES / 2)
        return NO_SIZE;
    while (size < SF_READ_MEMORY_SIZES && n > bytes_of(size))
        size++;
    return size;
}

static void *piece_use(struct read_piece *p)
{
    return p ? p + 1 : NULL;
}

/* Under the lock: those that are too many, as a list. Small ones go first: windows begin small and grow. */
static struct read_piece *surplus(sf_read_memory *m)
{
    uint64_t room = m->most_used_bytes - m->used_bytes,
             most = room < SF_READ_MEMORY_IDLE_BYTES ? room : SF_READ_MEMORY_IDLE_BYTES;
    struct read_piece *out = NULL;

    if (m->used_bytes == 0)
        most = m->most_used_bytes = 0;
    for (uint32_t size = 0; m->idle_bytes > most;) {
        struct read_piece *p = m->idle[size];

        if (!p) {
            size++;
            continue;
        }
        m->idle[size] = p->next;
        m->idle_bytes -= bytes_of(size);
        p->next = out;
        out = p;
    }
    return out;
}

static void pieces_free(sf_read_memory *m, struct read_piece *p)
{
    for (struct read_piece *next; p; p = next) {
        next = p->next;
        SF_UNPOISON(p + 1, bytes_of(p->size) - sizeof(*p));
        sf__budget_let_go(m->budget, bytes_of(p->size));
        sf__free(m->alloc, p);
    }
}

static void *take(void *ctx, void *p, size_t n)
{
    sf_read_memory *m = ctx;
    struct read_piece *piece, *many = NULL;
    uint32_t size;

    if (p || n > SIZE_MAX - sizeof(*piece))
        return NULL;
    n += sizeof(*piece);
    size = size_for(n);
    if (size == NO_SIZE) {
        piece = sf__alloc(m->alloc, n);
        if (piece)
            piece->size = size;
        return piece_use(piece);
    }
    sf_mutex_lock(&m->lock);
    m->used_bytes += bytes_of(size);
    if (m->used_bytes > m->most_used_bytes)
        m->most_used_bytes = m->used_bytes;
    piece = m->idle[size];
    if (piece) {
        m->idle[size] = piece->next;
        m->idle_bytes -= bytes_of(size);
    } else {
        many = surplus(m);
    }
    sf_mutex_unlock(&m->lock);
    pieces_free(m, many);
    if (piece) {
        sf__budget_let_go(m->budget, bytes_of(size));
        SF_UNPOISON(piece + 1, bytes_of(size) - sizeof(*piece));
        return piece_use(piece);
    }
    piece = sf__alloc(m->alloc, bytes_of(size));
    if (piece) {
        piece->size = size;
        return piece_use(piece);
    }
    sf_mutex_lock(&m->lock);
    m->used_bytes -= bytes_of(size);
    many = surplus(m); /* others may have ended meanwhile: of all that is in use this may have been the last */
    sf_mutex_unlock(&m->lock);
    pieces_free(m, many);
    return NULL;
}

static void give_back(void *ctx, void *p)
{
    sf_read_memory *m = ctx;
    struct read_piece *piece = (struct read_piece *)p - 1;

    if (piece->size == NO_SIZE) {
        sf__free(m->alloc, piece);
        return;
    }
    sf__budget_hold(m->budget, bytes_of(piece->size));
    SF_POISON(piece + 1, bytes_of(piece->size) - sizeof(*piece));
    sf_mutex_lock(&m->lock);
    m->used_bytes -= bytes_of(piece->size);
    m->idle_bytes += bytes_of(piece->size);
    piece->next = m->idle[piece->size];
    m->idle[piece->size] = piece;
    piece = surplus(m);
    sf_mutex_unlock(&m->lock);
    pieces_free(m, piece);
}

void sf__read_memory_init(sf_read_memory *m, sf_budget *budget, const sf_allocator *a)
{
    *m = (sf_read_memory){.alloc = a, .budget = budget};
    m->allocator = (sf_allocator){.size = sizeof(sf_allocator), .realloc = take, .free = give_back, .ctx = m};
    sf_mutex_init(&m->lock);
}

void sf__read_memory_cleanup(sf_read_memory *m)
{
    assert(m->used_bytes == 0 && m->idle_bytes == 0);
    sf_mutex_destroy(&m->lock);
}
