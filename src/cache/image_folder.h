/* What files with blocks to be mapped (image_file.h) take in a folder, and which of them go. They are unlinked, and never cut off or written to: so
 * whoever has one mapped keeps it, and its bytes on disk, until it lets go. Blocking; under the folder's lock, or in the knowledge that another process may do
 * the same. */
#ifndef SF_CACHE_IMAGE_FOLDER_H
#define SF_CACHE_IMAGE_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#define SF_IMAGE_SUFFIX ".blocks"
#define SF_IMAGE_MAKING_SUFFIX ".making" /* locked by who writes it; nobody reads it */

uint64_t sf__image_folder_bytes(int folder);
/* Those go that were mapped the longest ago, but for those that were since `since_us` (sf__clock_files_us()), until the others and `more` bytes are within `most`, and what nobody
 * writes any more. False: they are not. */
bool sf__image_folder_shrink(int folder, uint64_t more, uint64_t most, int64_t since_us);
/* Whether the name still is that file's. */
bool sf__image_folder_names(int folder, const char *name, int fd);

#endif
